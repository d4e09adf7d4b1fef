//! The task against a server that does as the test says.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use taffrail_proto::v1::groups_server::{Groups, GroupsServer};
use taffrail_proto::v1::session_response::Frame as ResponseFrame;
use taffrail_proto::v1::{self, LogError, Outcome, Reason, SessionJoin, SessionJoined};
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status};

use super::*;
use crate::Client;
use crate::group::offsets::Committer;
use crate::group::rebalance::from_wire;

const PATIENCE: Duration = Duration::from_mins(1);

type Answers = mpsc::UnboundedSender<Result<SessionResponse, Status>>;
/// A stream as the server sees it: what comes, and what it says.
type Opened = (Streaming<SessionRequest>, Answers);

struct Fake {
    opened: mpsc::UnboundedSender<Opened>,
    /// Calls for offsets that are still answered by a coordinator that loads.
    loading: AtomicU32,
}

#[tonic::async_trait]
impl Groups for Fake {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<SessionResponse, Status>> + Send>>;
    type ConsumeStream = Pin<Box<dyn Stream<Item = Result<v1::ConsumeResponse, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (answers, stream) = mpsc::unbounded_channel();
        self.opened.send((request.into_inner(), answers)).map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(stream))))
    }

    async fn consume(
        &self,
        _: Request<Streaming<v1::ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn commit_offsets(
        &self,
        _: Request<v1::CommitOffsetsRequest>,
    ) -> Result<Response<v1::CommitOffsetsResponse>, Status> {
        match self.loading.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)) {
            Ok(_) => Err(loading()),
            Err(_) => Ok(Response::new(v1::CommitOffsetsResponse::default())),
        }
    }

    async fn fetch_offsets(
        &self,
        _: Request<v1::FetchOffsetsRequest>,
    ) -> Result<Response<v1::FetchOffsetsResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn list_groups(&self, _: Request<v1::ListGroupsRequest>) -> Result<Response<v1::ListGroupsResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn describe_group(
        &self,
        _: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::DescribeGroupResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn delete_group(
        &self,
        _: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }

    async fn reset_offsets(
        &self,
        _: Request<v1::ResetOffsetsRequest>,
    ) -> Result<Response<v1::ResetOffsetsResponse>, Status> {
        Err(Status::unimplemented("not faked"))
    }
}

async fn serve() -> (SocketAddr, mpsc::UnboundedReceiver<Opened>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, (opened, streams)) = (listener.local_addr().unwrap(), mpsc::unbounded_channel());
    let fake = Fake { opened, loading: AtomicU32::new(3) };
    let server = tonic::transport::Server::builder().add_service(GroupsServer::new(fake));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, streams)
}

fn start(address: SocketAddr, instance: &str, max_processing: Duration) -> Session {
    let shared = Client::connect(address.to_string()).unwrap().0;
    let (group, member_id, instance_id) = ("g".into(), "m".into(), instance.into());
    let join = SessionJoin { group, member_id, instance_id, ..SessionJoin::default() };
    Session::start(shared, Membership::new(join, Duration::from_secs(30), max_processing, Instant::now()))
}

async fn frame(stream: &mut Streaming<SessionRequest>) -> RequestFrame {
    let message = timeout(PATIENCE, stream.message()).await.expect("a frame in time").unwrap();
    message.expect("a frame").frame.expect("a known frame")
}

async fn opened(streams: &mut mpsc::UnboundedReceiver<Opened>) -> (SessionJoin, Opened) {
    let (mut stream, answers) = timeout(PATIENCE, streams.recv()).await.expect("a stream in time").unwrap();
    let RequestFrame::Join(join) = frame(&mut stream).await else { panic!("the first frame is a join") };
    (join, (stream, answers))
}

fn take_in(answers: &Answers, epoch: i32, partitions: &[i32]) {
    let joined = SessionJoined {
        member_id: "m".into(),
        member_epoch: epoch,
        heartbeat_interval_ms: 50,
        session_timeout_ms: 30_000,
    };
    let topic = v1::TopicPartitions { topic: "t".into(), topic_id: "id".into(), partitions: partitions.to_vec() };
    let assignment = v1::Assignment { member_epoch: epoch, partitions: vec![topic] };
    for frame in [ResponseFrame::Joined(joined), ResponseFrame::Assignment(assignment)] {
        answers.send(Ok(SessionResponse { frame: Some(frame) })).unwrap();
    }
}

async fn until(session: &mut Session, wanted: impl FnMut(&View) -> bool) -> View {
    timeout(PATIENCE, session.view.wait_for(wanted)).await.expect("in time").expect("the task lives").clone()
}

fn fenced_status() -> Status {
    let detail =
        LogError { reason: Reason::MemberFenced.into(), outcome: Outcome::NotApplied.into(), ..LogError::default() };
    refusal(tonic::Code::FailedPrecondition, &detail)
}

/// As the broker says it.
fn loading() -> Status {
    let (reason, outcome) = (Reason::CoordinatorLoading.into(), Outcome::NotApplied.into());
    let detail = LogError { reason, outcome, retriable: true, retry_after_ms: 50, ..LogError::default() };
    refusal(tonic::Code::Unavailable, &detail)
}

fn refusal(code: tonic::Code, detail: &LogError) -> Status {
    let value = prost::Message::encode_to_vec(detail);
    let any = prost_types::Any { type_url: "type.googleapis.com/taffrail.v1.LogError".into(), value };
    let status = tonic_types::Status { code: code.into(), message: String::new(), details: vec![any] };
    Status::with_details(code, "", prost::Message::encode_to_vec(&status).into())
}

#[tokio::test]
async fn heartbeats_say_what_is_owned_and_a_leave_is_waited_for() {
    let (address, mut streams) = serve().await;
    let mut session = start(address, "", PATIENCE);
    let (join, (mut stream, answers)) = opened(&mut streams).await;
    assert_eq!((join.group.as_str(), join.member_epoch), ("g", 0));
    take_in(&answers, 1, &[0, 1]);
    let view = until(&mut session, |v| v.target.is_some()).await;
    session.commands.send(Command::Owned(view.target.unwrap(), 1)).unwrap();
    let owned = loop {
        match frame(&mut stream).await {
            // One that was due before the command was taken in.
            RequestFrame::Heartbeat(beat) if beat.owned.is_empty() => {}
            RequestFrame::Heartbeat(beat) => break beat.owned,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(from_wire(owned).map(|p| p.partition).collect::<Vec<_>>(), [0, 1]);

    let (left, mut heard) = oneshot::channel();
    session.commands.send(Command::Leave(left)).unwrap();
    let leave = loop {
        match frame(&mut stream).await {
            RequestFrame::Leave(leave) => break leave,
            _ => assert!(heard.try_recv().is_err(), "not before the group has heard"),
        }
    };
    assert!(!leave.returning);
    drop(answers);
    timeout(PATIENCE, heard).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_static_member_that_is_dropped_says_that_it_comes_back() {
    let (address, mut streams) = serve().await;
    let mut session = start(address, "instance", PATIENCE);
    let (_, (mut stream, answers)) = opened(&mut streams).await;
    take_in(&answers, 1, &[0]);
    until(&mut session, |v| v.epoch == 1).await;
    drop(session);
    loop {
        match frame(&mut stream).await {
            RequestFrame::Leave(leave) => break assert!(leave.returning),
            RequestFrame::Heartbeat(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_stream_that_breaks_is_opened_again_with_epoch_and_partitions() {
    let (address, mut streams) = serve().await;
    let mut session = start(address, "", PATIENCE);
    let (_, (_stream, answers)) = opened(&mut streams).await;
    take_in(&answers, 7, &[3]);
    let before = until(&mut session, |v| v.target.is_some()).await;
    answers.send(Err(Status::unavailable("the broker stops"))).unwrap();
    let (join, _) = opened(&mut streams).await;
    assert_eq!((join.member_id.as_str(), join.member_epoch, &join.owned[0].partitions), ("m", 7, &vec![3]));
    assert_eq!(session.view.borrow().era, before.era, "nothing is lost");
}

#[tokio::test]
async fn a_fenced_member_joins_anew_once_the_application_knows() {
    let (address, mut streams) = serve().await;
    let mut session = start(address, "", PATIENCE);
    let (_, (_stream, answers)) = opened(&mut streams).await;
    take_in(&answers, 7, &[3]);
    until(&mut session, |v| v.target.is_some()).await;
    answers.send(Err(fenced_status())).unwrap();
    let view = until(&mut session, |v| v.era == 1).await;
    assert_eq!((view.epoch, view.target), (0, None));
    let early = timeout(Duration::from_millis(300), streams.recv()).await;
    assert!(early.is_err(), "not before the application knows");
    session.commands.send(Command::ToldOfLoss).unwrap();
    let (join, _) = opened(&mut streams).await;
    assert_eq!((join.member_epoch, join.owned.len()), (0, 0));
}

#[tokio::test]
async fn an_application_that_is_stuck_is_taken_out_of_its_group() {
    let (address, mut streams) = serve().await;
    let mut session = start(address, "", Duration::from_millis(200));
    let (_, (mut stream, answers)) = opened(&mut streams).await;
    take_in(&answers, 1, &[0]);
    until(&mut session, |v| v.target.is_some()).await;
    *session.busy.lock() = Some(Instant::now());
    while !matches!(frame(&mut stream).await, RequestFrame::Leave(_)) {}
    drop(answers);
    until(&mut session, |v| v.era == 1).await;
}

#[tokio::test]
async fn a_coordinator_that_loads_is_asked_again_until_it_answers() {
    let (address, mut streams) = serve().await;
    let client = Client::connect(address.to_string()).unwrap();
    let began = Instant::now();
    let refused = client.0.commit_offsets(Committer::default(), &[v1::OffsetCommit::default()]).await.unwrap();
    assert_eq!(refused, [], "the fourth try is answered");
    assert!(began.elapsed() >= 3 * Duration::from_millis(50), "each wait is as long as the broker asked for");

    let mut session = start(address, "", PATIENCE);
    let (_, (_stream, answers)) = opened(&mut streams).await;
    answers.send(Err(loading())).unwrap();
    let (join, (_again, answers)) = opened(&mut streams).await;
    assert_eq!(join.member_id, "m");
    take_in(&answers, 1, &[0]);
    assert!(until(&mut session, |v| v.epoch == 1).await.failed.is_none());
}

#[tokio::test]
async fn a_member_that_steps_down_leaves_even_a_static_one_and_joins_anew_when_told() {
    let (address, mut streams) = serve().await;
    let mut session = start(address, "instance", PATIENCE);
    let (_, (mut stream, answers)) = opened(&mut streams).await;
    take_in(&answers, 7, &[3]);
    until(&mut session, |v| v.target.is_some()).await;
    let (left, heard) = oneshot::channel();
    session.commands.send(Command::StepDown(left)).unwrap();
    loop {
        match frame(&mut stream).await {
            RequestFrame::Leave(leave) => break assert!(!leave.returning, "its partitions wait for nobody"),
            RequestFrame::Heartbeat(_) => {}
            other => panic!("{other:?}"),
        }
    }
    drop(answers);
    timeout(PATIENCE, heard).await.unwrap().unwrap();
    assert_eq!(session.view.borrow().era, 1);
    session.commands.send(Command::ToldOfLoss).unwrap();
    let (join, _) = opened(&mut streams).await;
    assert_eq!((join.member_epoch, join.owned.len()), (0, 0));
}
