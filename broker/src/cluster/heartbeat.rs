//! Brokers tell each other that they are alive, and the controller has deleted topics purged: the internal service
//! `Controller`, both ends.
//!
//! Every broker tells every other, once a [`INTERVAL`]th of the session timeout, whoever is controller. The calls have
//! connections of their own, so that no data holds them up.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use taffrail_proto::internal::v1::controller_client::ControllerClient;
use taffrail_proto::internal::v1::controller_server::Controller;
use taffrail_proto::internal::v1::{
    HeartbeatRequest, HeartbeatResponse, PartitionFault, PurgeTopicRequest, PurgeTopicResponse, RecoveredPartition,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::Session;
use super::controller::liveness::{Beat, Liveness};
use crate::brokers::{Brokers, INTERNAL};
use crate::context::Context;

/// Beats in one session timeout.
pub const INTERVAL: u32 = 6;
/// Most partitions that one beat names as faulty or recovered; the others come once these are settled.
const MAX_NAMED: usize = 10_000;

/// What this broker says of itself.
pub type Own = watch::Receiver<Beat>;

/// Deletes the data of a topic on a broker.
pub trait Purger: Send + Sync + 'static {
    /// Answers when it is gone there; why not otherwise.
    fn purge(&self, broker: i32, topic: Uuid, controller_epoch: i32) -> BoxFuture<'_, Result<(), String>>;
}

/// Connections for control to the other brokers, each with its address. Cheap to clone.
#[derive(Clone)]
pub struct Links {
    brokers: Arc<Brokers>,
    timeout: Duration,
    open: Arc<Mutex<HashMap<i32, (String, Channel)>>>,
}

impl Links {
    /// Calls that take longer than `timeout` have failed.
    pub fn new(brokers: Arc<Brokers>, timeout: Duration) -> Self {
        Self { brokers, timeout, open: Arc::default() }
    }

    fn client(&self, broker: i32) -> Result<ControllerClient<Channel>, String> {
        let image = self.brokers.image();
        let address = image.endpoint(broker, INTERNAL).ok_or_else(|| format!("broker {broker} is not registered"))?;
        let mut open = self.open.lock();
        open.retain(|known, _| image.brokers.contains_key(known));
        if let Some((at, channel)) = open.get(&broker)
            && at == address
        {
            return Ok(ControllerClient::new(channel.clone()));
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
        let channel = endpoint.connect_timeout(self.timeout).timeout(self.timeout).tcp_nodelay(true).connect_lazy();
        open.insert(broker, (address.to_owned(), channel.clone()));
        Ok(ControllerClient::new(channel))
    }
}

impl Purger for Links {
    fn purge(&self, broker: i32, topic: Uuid, controller_epoch: i32) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let request = PurgeTopicRequest { topic_id: topic.to_string(), controller_epoch };
            let answer = self.client(broker)?.purge_topic(request).await;
            answer.map(|_| ()).map_err(|status| status.message().to_owned())
        })
    }
}

/// A broker that tells that it is alive.
pub struct Teller {
    /// The ways to the others.
    pub links: Links,
    /// Clock.
    pub context: Context,
    /// Who it is.
    pub me: Session,
    /// What it heard, of itself too.
    pub liveness: Arc<Mutex<Liveness>>,
}

/// Tells all brokers, itself too, that this one is alive, until `stop`.
pub async fn tell(teller: Teller, mut own: Own, interval: Duration, stop: CancellationToken) {
    let Teller { links, context, me, liveness } = teller;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            // What has changed is told at once.
            changed = own.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
        let beat = own.borrow_and_update().clone();
        liveness.lock().hear(me.broker, beat.clone(), context.clock().since_boot());
        let request = request(me, &beat);
        let others: Vec<_> = links.brokers.image().brokers.keys().copied().filter(|id| *id != me.broker).collect();
        for broker in others {
            let (links, request) = (links.clone(), request.clone());
            // Each for itself: one that does not answer delays no other. All end within the timeout.
            tokio::spawn(async move {
                let Ok(mut client) = links.client(broker) else { return };
                if let Err(status) = client.heartbeat(request).await {
                    tracing::debug!(broker, %status, "a broker did not hear the heartbeat");
                }
            });
        }
    }
}

fn request(me: Session, beat: &Beat) -> HeartbeatRequest {
    let fault = |((topic, partition), reason): (&(Uuid, i32), &String)| PartitionFault {
        topic_id: topic.to_string(),
        partition: *partition,
        reason: reason.clone(),
    };
    let found =
        |(topic, partition): &(Uuid, i32)| RecoveredPartition { topic_id: topic.to_string(), partition: *partition };
    HeartbeatRequest {
        broker: me.broker,
        incarnation: me.incarnation,
        stopping: beat.stopping,
        faults: beat.faults.iter().take(MAX_NAMED).map(fault).collect(),
        recovered: beat.recovered.iter().take(MAX_NAMED).map(found).collect(),
    }
}

fn beat(request: HeartbeatRequest) -> Option<Beat> {
    let id = |text: &str| Uuid::try_parse(text).ok();
    let fault = |fault: PartitionFault| Some(((id(&fault.topic_id)?, fault.partition), fault.reason));
    let found = |found: RecoveredPartition| Some((id(&found.topic_id)?, found.partition));
    Some(Beat {
        incarnation: request.incarnation,
        stopping: request.stopping,
        faults: request.faults.into_iter().map(fault).collect::<Option<BTreeMap<_, _>>>()?,
        recovered: request.recovered.into_iter().map(found).collect::<Option<_>>()?,
    })
}

/// The receiving end.
pub struct Service {
    /// This broker.
    pub me: i32,
    /// Clock.
    pub context: Context,
    /// Where beats go.
    pub liveness: Arc<Mutex<Liveness>>,
    /// The registered brokers.
    pub brokers: Arc<Brokers>,
    /// Whether this broker acts as controller.
    pub acting: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Deletes this broker's data of topics.
    pub purge: Arc<dyn Purger>,
}

#[tonic::async_trait]
impl Controller for Service {
    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        let request = request.into_inner();
        let (broker, incarnation) = (request.broker, request.incarnation);
        if request.faults.len() > MAX_NAMED || request.recovered.len() > MAX_NAMED {
            return Err(Status::invalid_argument(format!("more than {MAX_NAMED} partitions in one heartbeat")));
        }
        let beat = beat(request).ok_or_else(|| Status::invalid_argument("a topic id is no UUID"))?;
        let image = self.brokers.image();
        let registered = image.brokers.get(&broker);
        // Only of those that are registered, so that nobody fills the memory with brokers that do not exist.
        if registered.is_some() {
            self.liveness.lock().hear(broker, beat, self.context.clock().since_boot());
        }
        let fenced = registered.is_none_or(|registered| registered.fenced || registered.incarnation != incarnation);
        Ok(Response::new(HeartbeatResponse { acting: (self.acting)(), fenced }))
    }

    async fn purge_topic(&self, request: Request<PurgeTopicRequest>) -> Result<Response<PurgeTopicResponse>, Status> {
        let PurgeTopicRequest { topic_id, controller_epoch } = request.into_inner();
        let topic = Uuid::try_parse(&topic_id).map_err(|_| Status::invalid_argument("topic_id is no UUID"))?;
        let purged = self.purge.purge(self.me, topic, controller_epoch).await;
        purged.map(|()| Response::new(PurgeTopicResponse {})).map_err(Status::failed_precondition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_arrives_as_it_was_sent() {
        let topic = Uuid::from_u128(4);
        let sent = Beat {
            incarnation: 7,
            stopping: true,
            faults: BTreeMap::from([((topic, 1), "its log is missing".to_owned())]),
            recovered: [(topic, 2)].into(),
        };
        assert_eq!(beat(request(Session { broker: 1, incarnation: 7 }, &sent)), Some(sent));
    }

    #[test]
    fn a_topic_that_is_no_uuid_is_refused() {
        let fault = PartitionFault { topic_id: "x".to_owned(), ..PartitionFault::default() };
        assert_eq!(beat(HeartbeatRequest { faults: vec![fault], ..HeartbeatRequest::default() }), None);
    }
}
