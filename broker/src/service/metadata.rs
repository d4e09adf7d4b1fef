//! Get and Watch: brokers, topics, limits.

use std::sync::Arc;

use http::uri::Authority;
use taffrail_proto::record::{MAX_HEADERS_BYTES, MAX_KEY_BYTES};
use taffrail_proto::v1::{
    self, BrokerEndpoint, GetMetadataRequest, GetMetadataResponse, PartitionMetadata, TopicMetadata,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::call::{Call, finish, refuse};
use super::status::{Refused, refusal};
use super::{Broker, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES};
use crate::brokers::Registered;
use crate::memory::Charge;
use crate::metrics::Rpc;
use crate::security::{self, Resource, Verb};
use crate::server::MAX_STREAMS;
use crate::topics::{Assignment, Image, Topic};

/// About what a topic and a partition take in an answer.
const TOPIC_BYTES: usize = 128;
const PARTITION_BYTES: usize = 32;

/// The service `Metadata`.
pub(super) struct Service {
    broker: Arc<Broker>,
    advertise: Option<Arc<str>>,
}

/// What it takes to answer one client.
#[derive(Clone)]
struct View {
    broker: Arc<Broker>,
    call: Call,
    topics: Vec<String>,
    endpoints: Endpoints,
}

/// Where the client is told that brokers are.
#[derive(Clone)]
enum Endpoints {
    /// All of them where it is, since what it reached stands before all of them, or there is but one.
    Used(String),
    /// Each at its own address of this listener.
    Listener(Arc<str>),
}

impl Endpoints {
    fn of(&self, broker: &Registered) -> Option<BrokerEndpoint> {
        let (endpoint, zone) = match self {
            Self::Used(endpoint) => (endpoint.clone(), None),
            Self::Listener(name) => (broker.endpoints.get(&**name)?.clone(), broker.zone.clone()),
        };
        Some(BrokerEndpoint { id: broker.id, endpoint, zone, draining: broker.draining })
    }
}

impl Service {
    pub(super) fn new(broker: &Arc<Broker>, advertise: Option<&str>) -> Self {
        Self { broker: Arc::clone(broker), advertise: advertise.map(Arc::from) }
    }

    fn view(&self, request: Request<GetMetadataRequest>) -> Result<View, Status> {
        let call = Call::of(&request)?;
        let used = || request.extensions().get::<Authority>().map(ToString::to_string);
        let advertised = self.advertise.as_deref().map(str::to_owned);
        let listener = &call.connection.listener;
        let endpoints = if listener.exposed {
            Endpoints::Used(advertised.or_else(used).unwrap_or_else(|| call.connection.local.to_string()))
        } else {
            Endpoints::Listener(listener.name.clone())
        };
        Ok(View { broker: Arc::clone(&self.broker), call, topics: request.into_inner().topics, endpoints })
    }
}

impl View {
    /// The topics that the caller asked for and may see.
    fn topics(&self, image: &Image) -> Result<Vec<Arc<Topic>>, Refused> {
        if self.topics.is_empty() {
            let visible = |topic: &&Arc<Topic>| {
                !topic.internal
                    && security::authorize(&self.call.caller, Verb::Describe, Resource::Topic(&topic.name)).is_ok()
            };
            return Ok(image.topics().filter(visible).cloned().collect());
        }
        let mut topics = Vec::new();
        for name in &self.topics {
            self.call.authorize_topic(Verb::Describe, name)?;
            topics.extend(image.topic(name).ok().cloned());
        }
        Ok(topics)
    }

    /// The answer, and what it takes.
    async fn answer(&self) -> Result<(GetMetadataResponse, Charge), Refused> {
        let (image, brokers) = (self.broker.topics.full_image(), self.broker.brokers.image());
        let topics = self.topics(&image)?;
        let bytes = topics.iter().map(|topic| TOPIC_BYTES + topic.partitions.len() * PARTITION_BYTES).sum();
        let charge = self.call.connection.responses.charge(bytes).await;
        let response = GetMetadataResponse {
            cluster_id: self.broker.cluster_id(),
            brokers: brokers
                .brokers
                .values()
                .filter(|broker| !broker.is_gone())
                .filter_map(|broker| self.endpoints.of(broker))
                .collect(),
            topics: topics.iter().map(|topic| describe(topic)).collect(),
            limits: Some(limits()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: image.revision,
        };
        Ok((response, charge))
    }
}

fn describe(topic: &Topic) -> TopicMetadata {
    let partition = |(index, assignment): (usize, &Assignment)| PartitionMetadata {
        index: index as i32,
        leader: assignment.leader.unwrap_or(-1),
        leader_epoch: assignment.leader_epoch,
        replicas: assignment.replicas.clone(),
        isr: assignment.isr.clone(),
        adding: assignment.adding.clone(),
        removing: assignment.removing.clone(),
    };
    TopicMetadata {
        name: topic.name.to_string(),
        topic_id: topic.id.to_string(),
        partitions: topic.assignments.iter().enumerate().map(partition).collect(),
        max_message_bytes: topic.settings.max_message_bytes as u32,
        internal: topic.internal,
    }
}

fn limits() -> v1::Limits {
    v1::Limits {
        max_request_bytes: MAX_REQUEST_BYTES as u32,
        max_response_bytes: MAX_RESPONSE_BYTES as u32,
        max_streams_per_connection: MAX_STREAMS,
        max_key_bytes: MAX_KEY_BYTES as u32,
        max_header_bytes: MAX_HEADERS_BYTES as u32,
    }
}

#[tonic::async_trait]
impl v1::metadata_server::Metadata for Service {
    async fn get(&self, request: Request<GetMetadataRequest>) -> Result<Response<GetMetadataResponse>, Status> {
        let metrics = &self.broker.metrics;
        let _counted = metrics.rpc(Rpc::GetMetadata).call();
        let view = self.view(request)?;
        let answer = view.answer().await.map(|(response, charge)| {
            view.call.outbox.put(charge);
            response
        });
        finish(metrics, answer)
    }

    type WatchStream = ReceiverStream<Result<GetMetadataResponse, Status>>;

    async fn watch(&self, request: Request<GetMetadataRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let view = self.view(request)?;
        let (answers, outbound) = mpsc::channel(1);
        tokio::spawn(async move {
            let _open = view.broker.metrics.rpc(Rpc::WatchMetadata).stream();
            let ended = tokio::select! {
                ended = watch(&view, &answers) => ended,
                () = answers.closed() => Ok(()),
                // At once: a client that watches has nothing in flight, and would hold up the stop.
                () = view.call.connection.drain.announced.cancelled() => {
                    Err(refusal(v1::Reason::Unavailable, "the broker is stopping: connect again").into())
                }
            };
            if let Err(refused) = ended {
                let _ = answers.send(Err(refuse(&view.broker.metrics, &refused.0))).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(outbound)))
    }
}

/// Answers now and after each change; a client that is slow gets the newest state only.
async fn watch(view: &View, answers: &mpsc::Sender<Result<GetMetadataResponse, Status>>) -> Result<(), Refused> {
    let names = view.topics.iter().map(|name| name.len() + size_of::<String>());
    let _held = view.call.hold(names.sum());
    let (mut changes, mut brokers) = (view.broker.topics.subscribe(), view.broker.brokers.subscribe());
    loop {
        changes.mark_unchanged();
        brokers.mark_unchanged();
        let Ok(place) = answers.reserve().await else { return Ok(()) };
        let (response, charge) = view.answer().await?;
        view.call.outbox.put(charge);
        view.broker.metrics.rpc(Rpc::WatchMetadata).requests.inc();
        place.send(Ok(response));
        let changed = tokio::select! {
            changed = changes.changed() => changed,
            changed = brokers.changed() => changed,
        };
        if changed.is_err() {
            return Ok(());
        }
    }
}
