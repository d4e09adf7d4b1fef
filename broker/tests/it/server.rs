//! The server: who is let in, health, reflection, drain.

use std::io::Write;
use std::time::Duration;

use taffrail_broker::security::{Authenticator, TokenFile};
use taffrail_broker::server::Options;
use taffrail_proto::v1::{self, Reason, fetch_stream_response, produce_stream_response};
use tonic::Code;
use tonic::metadata::MetadataValue;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::{TestBroker, batch, fetch_partition, log_error, reason, soon};
use crate::{fetch_stream, produce_stream};

async fn health(broker: &TestBroker, service: &str) -> Result<ServingStatus, Code> {
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(broker.connect().await).check(request).await;
    answer.map(|answer| answer.into_inner().status()).map_err(|status| status.code())
}

#[tokio::test]
async fn health_tells_alive_and_ready() {
    let broker = TestBroker::start().await;
    assert_eq!(health(&broker, "").await, Ok(ServingStatus::Serving));
    assert_eq!(health(&broker, "ready").await, Ok(ServingStatus::Serving));
    assert_eq!(health(&broker, "nonsense").await, Err(Code::NotFound));
}

#[tokio::test]
async fn reflection_lists_the_services() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let broker = TestBroker::start().await;
    let request = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(broker.channel.clone());
    let mut answers = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    let answer = soon(answers.message()).await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for service in ["Producer", "Consumer", "Metadata", "Admin"] {
        assert!(names.contains(&format!("taffrail.v1.{service}")), "{names:?}");
    }
}

#[tokio::test]
async fn with_a_token_file_every_call_but_health_needs_a_token_of_a_fitting_role() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "admin-admin-admin admin\nreader-reader-reader consumer").unwrap();
    let tokens = TokenFile::open(file.path()).unwrap();
    let authenticator = Authenticator::new(Some(tokens.into()), false);
    let broker = TestBroker::with(Options { authenticator, ..Options::default() }).await;
    assert_eq!(health(&broker, "ready").await, Ok(ServingStatus::Serving));

    let with = |token: Option<&str>| {
        let mut request = tonic::Request::new(v1::CreateTopicRequest { name: "t".to_owned(), ..Default::default() });
        if let Some(token) = token {
            let value: MetadataValue<_> = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        request
    };
    let create = async |token| broker.admin().create_topic(with(token)).await;
    assert_eq!(create(None).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(reason(create(Some("admin-admin-admim")).await), Reason::Unauthenticated);
    let denied = create(Some("reader-reader-reader")).await.unwrap_err();
    assert_eq!((denied.code(), log_error(&denied).reason()), (Code::PermissionDenied, Reason::Unauthorized));
    create(Some("admin-admin-admin")).await.unwrap();

    writeln!(file, "newest-newest-newest admin").unwrap();
    let refreshed = async {
        while create(Some("newest-newest-newest")).await.is_err_and(|status| status.code() == Code::Unauthenticated) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    soon(refreshed).await;
}

#[tokio::test]
async fn more_connections_than_may_be_are_closed_and_the_others_served() {
    let broker = TestBroker::with(Options { max_connections: 2, ..Options::default() }).await;
    let kept = [broker.connect().await, broker.connect().await];
    for channel in &kept {
        let mut client = v1::metadata_client::MetadataClient::new(channel.clone());
        client.get(v1::GetMetadataRequest::default()).await.unwrap();
    }
    // The third one is accepted by the kernel and closed by the broker.
    let third = tokio::net::TcpStream::connect(broker.address()).await.unwrap();
    soon(third.readable()).await.unwrap();
    assert!(matches!(third.try_read(&mut [0; 1]), Ok(0) | Err(_)));
    let mut client = v1::metadata_client::MetadataClient::new(kept[0].clone());
    client.get(v1::GetMetadataRequest::default()).await.unwrap();
}

#[tokio::test]
async fn whoever_does_not_speak_http2_is_closed() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let broker = TestBroker::start().await;
    let mut stream = tokio::net::TcpStream::connect(broker.address()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = soon(stream.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_stop_tells_the_streams_answers_what_is_in_flight_and_ends() {
    // After half of it streams are ended, the time for the last word included.
    let mut broker = TestBroker::with(Options { drain_timeout: Duration::from_secs(8), ..Options::default() }).await;
    broker.topic("t", 1).await;
    let mut producing = produce_stream::Stream::open(&broker).await;
    let mut fetching = fetch_stream::Stream::with_credit(&broker, 1 << 20).await;
    fetching.add(1, fetch_partition("t", 0, 0)).await;
    assert!(soon(fetching.answers.message()).await.unwrap().is_some());
    broker.begin_stop();

    let told = soon(fetching.answers.message()).await.unwrap().unwrap().frame.unwrap();
    assert!(matches!(told, fetch_stream_response::Frame::Drain(_)), "{told:?}");
    let told = producing.next().await.unwrap();
    assert!(matches!(told, produce_stream_response::Frame::Drain(_)), "{told:?}");
    producing.send(1, "t", 0, batch(&["last"], None)).await;
    assert_eq!(producing.outcome().await, (1, Ok(Some(0))), "what comes after the word is still taken");

    let ended = producing.next().await.unwrap_err();
    assert_eq!((ended.code(), log_error(&ended).reason()), (Code::Unavailable, Reason::Unavailable));
    let address = broker.address();
    soon(broker.stop()).await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn readiness_ends_when_storage_takes_no_more_writes() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    broker.disk.fail_next_write("the disk is gone");
    let records = vec![crate::harness::record(None, "v")];
    let request = v1::ProduceRequest { partition: Some(0), ..crate::harness::produce_request("t", records) };
    let error = log_error(&broker.producer().produce(request).await.unwrap_err());
    assert_eq!(error.reason(), Reason::StorageFailed);
    let not_ready = async {
        while health(&broker, "ready").await != Ok(ServingStatus::NotServing) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    soon(not_ready).await;
    assert_eq!(health(&broker, "").await, Ok(ServingStatus::Serving), "it is alive nevertheless");
}
