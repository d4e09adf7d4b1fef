//! Brokers tell each other that they are alive, and the controller has deleted topics purged: the internal service
//! `Controller`, both ends.
//!
//! Every broker tells every other, once a [`INTERVAL`]th of the session timeout, whoever is controller. The calls have
//! connections of their own, so that no data holds them up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use taffrail_crds::slice::{MAX_REPLICAS, Replica};
use taffrail_proto::internal::v1 as proto;
use taffrail_proto::internal::v1::controller_client::ControllerClient;
use taffrail_proto::internal::v1::controller_server::Controller;
use taffrail_proto::internal::v1::{
    BrokerSession, DamagedPartition, HeartbeatRequest, HeartbeatResponse, PartitionFault, ProposedIsr,
    PurgeTopicRequest, PurgeTopicResponse, RecoveredPartition, SeenPartition,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::Session;
use super::controller::liveness::{Beat, Liveness};
use super::controller::members::LogEnd;
use crate::brokers::{Brokers, Place};
use crate::context::Context;
use crate::replication::Proposal;

/// Beats in one session timeout.
pub const INTERVAL: u32 = 6;
/// Most partitions that one beat names in each list; the others come once these are settled.
const MAX_NAMED: usize = 10_000;

/// What this broker says of itself.
pub type Own = watch::Receiver<Beat>;

/// Deletes the data of a topic on a broker.
pub trait Purger: Send + Sync + 'static {
    /// Answers when it is gone there; why not otherwise.
    fn purge(&self, broker: i32, topic: Uuid, controller_epoch: i32) -> BoxFuture<'_, Result<(), String>>;
}

/// Connections for control to the other brokers, each with where it leads. Cheap to clone.
#[derive(Clone)]
pub struct Links {
    brokers: Arc<Brokers>,
    timeout: Duration,
    open: Arc<Mutex<HashMap<i32, (Place, Channel)>>>,
}

impl Links {
    /// Calls that take longer than `timeout` have failed.
    pub fn new(brokers: Arc<Brokers>, timeout: Duration) -> Self {
        Self { brokers, timeout, open: Arc::default() }
    }

    fn client(&self, broker: i32) -> Result<ControllerClient<Channel>, String> {
        let image = self.brokers.image();
        let place = image.place(broker).ok_or_else(|| format!("broker {broker} is not registered"))?;
        let mut open = self.open.lock();
        open.retain(|known, _| image.brokers.contains_key(known));
        if let Some((known, channel)) = open.get(&broker)
            && *known == place
        {
            return Ok(ControllerClient::new(channel.clone()));
        }
        let endpoint = Endpoint::from_shared(format!("http://{}", place.address)).map_err(|error| error.to_string())?;
        // A broker whose machine lost its power never ends its connections: without the questions whether it is there, what is
        // sent to the one that comes in its place would go the old way until the kernel gives up, a quarter of an hour later.
        let endpoint = endpoint
            .connect_timeout(self.timeout)
            .timeout(self.timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.timeout)
            .keep_alive_timeout(self.timeout)
            .keep_alive_while_idle(true);
        let channel = self.brokers.network().dial(endpoint);
        open.insert(broker, (place, channel.clone()));
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
    /// The newest session of this broker that others know of.
    pub newest: Arc<watch::Sender<i64>>,
}

/// Tells all brokers, itself too, that this one is alive, until `stop`.
pub async fn tell(teller: Teller, mut own: Own, interval: Duration, stop: CancellationToken) {
    let Teller { links, context, me, liveness, newest } = teller;
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
            let (links, request, newest) = (links.clone(), request.clone(), newest.clone());
            // Each for itself: one that does not answer delays no other. All end within the timeout.
            tokio::spawn(async move {
                let Ok(mut client) = links.client(broker) else { return };
                match client.heartbeat(request).await {
                    Ok(answer) => rise(&newest, answer.get_ref().incarnation),
                    Err(status) => tracing::debug!(broker, %status, "a broker did not hear the heartbeat"),
                }
            });
        }
    }
}

/// Others may know of different sessions: the newest counts.
fn rise(newest: &watch::Sender<i64>, told: i64) {
    newest.send_if_modified(|newest| {
        let rises = told > *newest;
        *newest = told.max(*newest);
        rises
    });
}

fn request(me: Session, beat: &Beat) -> HeartbeatRequest {
    let fault = |((topic, partition), reason): (&(Uuid, i32), &String)| PartitionFault {
        topic_id: topic.to_string(),
        partition: *partition,
        reason: reason.clone(),
    };
    let found = |((topic, partition), leader_epoch): (&(Uuid, i32), &i32)| RecoveredPartition {
        topic_id: topic.to_string(),
        partition: *partition,
        leader_epoch: *leader_epoch,
    };
    let damaged = |((topic, partition), leader_epoch): (&(Uuid, i32), &i32)| DamagedPartition {
        topic_id: topic.to_string(),
        partition: *partition,
        leader_epoch: *leader_epoch,
    };
    let seen = |((topic, partition), epoch): (&(Uuid, i32), &i32)| SeenPartition {
        topic_id: topic.to_string(),
        partition: *partition,
        partition_epoch: *epoch,
    };
    HeartbeatRequest {
        broker: me.broker,
        incarnation: me.incarnation,
        stopping: beat.stopping,
        faults: beat.faults.iter().take(MAX_NAMED).map(fault).collect(),
        recovered: beat.recovered.iter().take(MAX_NAMED).map(found).collect(),
        proposals: beat.proposals.iter().take(MAX_NAMED).map(|(key, proposal)| proposed(*key, proposal)).collect(),
        ends: beat.ends.iter().take(MAX_NAMED).map(|(key, end)| log_end(*key, *end)).collect(),
        damaged: beat.damaged.iter().take(MAX_NAMED).map(damaged).collect(),
        seen: beat.seen.iter().take(MAX_NAMED).map(seen).collect(),
    }
}

fn proposed((topic, partition): (Uuid, i32), proposal: &Proposal) -> ProposedIsr {
    let session = |replica: &Replica| BrokerSession { broker: replica.broker, incarnation: replica.incarnation };
    ProposedIsr {
        topic_id: topic.to_string(),
        partition,
        leader_epoch: proposal.leader_epoch,
        partition_epoch: proposal.partition_epoch,
        isr: proposal.isr.iter().map(session).collect(),
    }
}

fn log_end((topic, partition): (Uuid, i32), end: LogEnd) -> proto::LogEnd {
    let epoch = Some(end.epoch).filter(|epoch| *epoch >= 0);
    let LogEnd { leader_epoch, end, .. } = end;
    proto::LogEnd { topic_id: topic.to_string(), partition, epoch, end, leader_epoch }
}

/// Why a heartbeat is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Malformed {
    #[error("more than {MAX_NAMED} partitions in one list of a heartbeat")]
    TooMany,
    #[error("a topic id is no UUID")]
    TopicId,
    #[error("a number of a partition, a broker, an epoch, a session or an offset is negative")]
    Negative,
    #[error("a proposal names no replica, or more than a partition can have")]
    Replicas,
}

fn beat(request: HeartbeatRequest) -> Result<Beat, Malformed> {
    let HeartbeatRequest { faults, recovered, proposals, ends, damaged, seen, .. } = &request;
    let lists = [faults.len(), recovered.len(), proposals.len(), ends.len(), damaged.len(), seen.len()];
    if lists.into_iter().any(|named| named > MAX_NAMED) {
        return Err(Malformed::TooMany);
    }
    let fault = |fault: PartitionFault| Ok((key(&fault.topic_id, fault.partition)?, fault.reason));
    let under = |topic: &str, partition: i32, leader_epoch: i32| match leader_epoch {
        epoch @ 0.. => Ok((key(topic, partition)?, epoch)),
        _ => Err(Malformed::Negative),
    };
    let found = |found: RecoveredPartition| under(&found.topic_id, found.partition, found.leader_epoch);
    let damaged = |damaged: DamagedPartition| under(&damaged.topic_id, damaged.partition, damaged.leader_epoch);
    let seen = |seen: SeenPartition| match seen.partition_epoch {
        epoch @ 0.. => Ok((key(&seen.topic_id, seen.partition)?, epoch)),
        _ => Err(Malformed::Negative),
    };
    Ok(Beat {
        incarnation: request.incarnation,
        stopping: request.stopping,
        faults: request.faults.into_iter().map(fault).collect::<Result<_, _>>()?,
        damaged: request.damaged.into_iter().map(damaged).collect::<Result<_, _>>()?,
        recovered: request.recovered.into_iter().map(found).collect::<Result<_, _>>()?,
        proposals: request.proposals.into_iter().map(proposal).collect::<Result<_, _>>()?,
        ends: request.ends.iter().map(end).collect::<Result<_, _>>()?,
        seen: request.seen.into_iter().map(seen).collect::<Result<_, _>>()?,
    })
}

fn key(topic: &str, partition: i32) -> Result<(Uuid, i32), Malformed> {
    let topic = Uuid::try_parse(topic).map_err(|_| Malformed::TopicId)?;
    if partition < 0 { Err(Malformed::Negative) } else { Ok((topic, partition)) }
}

fn proposal(told: ProposedIsr) -> Result<((Uuid, i32), Proposal), Malformed> {
    let key = key(&told.topic_id, told.partition)?;
    if !(1..=MAX_REPLICAS as usize).contains(&told.isr.len()) {
        return Err(Malformed::Replicas);
    }
    let is_negative = |session: &BrokerSession| session.broker < 0 || session.incarnation < 0;
    if told.leader_epoch < 0 || told.partition_epoch < 0 || told.isr.iter().any(is_negative) {
        return Err(Malformed::Negative);
    }
    let replica = |session: BrokerSession| Replica { broker: session.broker, incarnation: session.incarnation };
    let isr = told.isr.into_iter().map(replica).collect();
    Ok((key, Proposal { leader_epoch: told.leader_epoch, partition_epoch: told.partition_epoch, isr }))
}

fn end(told: &proto::LogEnd) -> Result<((Uuid, i32), LogEnd), Malformed> {
    let key = key(&told.topic_id, told.partition)?;
    if told.end < 0 || told.leader_epoch < 0 || told.epoch.is_some_and(|epoch| epoch < 0) {
        return Err(Malformed::Negative);
    }
    let none = LogEnd::none(told.leader_epoch);
    Ok((key, LogEnd { epoch: told.epoch.unwrap_or(none.epoch), end: told.end, ..none }))
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
        let beat = beat(request).map_err(|malformed| Status::invalid_argument(malformed.to_string()))?;
        let image = self.brokers.image();
        let registered = image.brokers.get(&broker);
        // Only of those that are registered, so that nobody fills the memory with brokers that do not exist.
        if registered.is_some() {
            self.liveness.lock().hear(broker, beat, self.context.clock().since_boot());
        }
        let fenced = registered.is_none_or(|registered| registered.fenced || registered.incarnation != incarnation);
        let incarnation = registered.map_or(0, |registered| registered.incarnation);
        Ok(Response::new(HeartbeatResponse { acting: (self.acting)(), fenced, incarnation }))
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
    use std::collections::BTreeMap;

    use taffrail_proto::internal::v1::controller_server::ControllerServer;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_stream::wrappers::TcpListenerStream;

    use super::*;
    use crate::brokers::{INTERNAL, Image, Registered};

    struct Hears;

    #[tonic::async_trait]
    impl Controller for Hears {
        async fn heartbeat(&self, _: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
            Ok(Response::new(HeartbeatResponse::default()))
        }

        async fn purge_topic(&self, _: Request<PurgeTopicRequest>) -> Result<Response<PurgeTopicResponse>, Status> {
            Err(Status::unimplemented("not asked for"))
        }
    }

    #[tokio::test]
    async fn a_connection_to_a_machine_that_is_gone_is_made_anew() {
        let (server, name) =
            (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let (behind, address) = (server.local_addr().unwrap(), name.local_addr().unwrap());
        let hears = tonic::transport::Server::builder().add_service(ControllerServer::new(Hears));
        tokio::spawn(hears.serve_with_incoming(TcpListenerStream::new(server)));
        tokio::spawn(async move {
            // The first one is to a machine that says nothing any more.
            let _gone = name.accept().await.unwrap();
            loop {
                let (mut stream, _) = name.accept().await.unwrap();
                let mut to = TcpStream::connect(behind).await.unwrap();
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut to).await });
            }
        });
        let brokers = Brokers::new(0, "cluster".to_owned());
        let endpoints = [(INTERNAL.to_owned(), address.to_string())].into();
        let version = "test".to_owned();
        let other =
            Registered { id: 1, incarnation: 1, fenced: false, draining: false, zone: None, endpoints, version };
        brokers.publish(Image { brokers: [(1, other)].into() });
        let links = Links::new(brokers, Duration::from_millis(100));
        let heard = async { while links.client(1).unwrap().heartbeat(HeartbeatRequest::default()).await.is_err() {} };
        tokio::time::timeout(Duration::from_mins(1), heard).await.expect("it is heard in the end");
    }

    fn replica(broker: i32) -> Replica {
        Replica { broker, incarnation: 7 }
    }

    #[test]
    fn a_beat_arrives_as_it_was_sent() {
        let topic = Uuid::from_u128(4);
        let proposal = Proposal { leader_epoch: 3, partition_epoch: 9, isr: vec![replica(1), replica(2)] };
        let sent = Beat {
            incarnation: 7,
            stopping: true,
            faults: BTreeMap::from([((topic, 1), "its log is missing".to_owned())]),
            damaged: [((topic, 6), 9)].into(),
            recovered: [((topic, 2), 8)].into(),
            proposals: [((topic, 3), proposal)].into(),
            ends: [((topic, 4), LogEnd { leader_epoch: 7, epoch: 5, end: 6 }), ((topic, 5), LogEnd::none(7))].into(),
            seen: [((topic, 6), 12)].into(),
        };
        assert_eq!(beat(request(Session { broker: 1, incarnation: 7 }, &sent)), Ok(sent));
    }

    #[test]
    fn what_cannot_be_so_is_refused() {
        let topic_id = Uuid::from_u128(4).to_string();
        let fault = PartitionFault { topic_id: "x".to_owned(), ..PartitionFault::default() };
        let refused = |request: HeartbeatRequest| beat(request).unwrap_err();
        assert_eq!(refused(HeartbeatRequest { faults: vec![fault], ..Default::default() }), Malformed::TopicId);

        let of = |proposal: ProposedIsr| HeartbeatRequest {
            proposals: vec![ProposedIsr { topic_id: topic_id.clone(), ..proposal }],
            ..Default::default()
        };
        let isr = |count: usize| vec![BrokerSession { broker: 1, incarnation: 1 }; count];
        let possible = ProposedIsr { isr: isr(14), ..Default::default() };
        assert!(beat(of(possible.clone())).is_ok());
        for count in [0, 15] {
            let proposal = ProposedIsr { isr: isr(count), ..Default::default() };
            assert_eq!(refused(of(proposal)), Malformed::Replicas, "{count}");
        }
        for negative in [
            ProposedIsr { partition: -1, ..possible.clone() },
            ProposedIsr { leader_epoch: -1, ..possible.clone() },
            ProposedIsr { partition_epoch: -1, ..possible.clone() },
            ProposedIsr { isr: vec![BrokerSession { broker: -1, incarnation: 1 }], ..possible.clone() },
            ProposedIsr { isr: vec![BrokerSession { broker: 1, incarnation: -1 }], ..possible },
        ] {
            assert_eq!(refused(of(negative.clone())), Malformed::Negative, "{negative:?}");
        }

        for (epoch, end, leader_epoch) in [(Some(-1), 0, 0), (None, -1, 0), (None, 0, -1)] {
            let end = proto::LogEnd { topic_id: topic_id.clone(), partition: 0, epoch, end, leader_epoch };
            assert_eq!(refused(HeartbeatRequest { ends: vec![end], ..Default::default() }), Malformed::Negative);
        }
        for (partition, leader_epoch) in [(-1, 0), (0, -1)] {
            let found = RecoveredPartition { topic_id: topic_id.clone(), partition, leader_epoch };
            assert_eq!(refused(HeartbeatRequest { recovered: vec![found], ..Default::default() }), Malformed::Negative);
            let damaged = DamagedPartition { topic_id: topic_id.clone(), partition, leader_epoch };
            assert_eq!(refused(HeartbeatRequest { damaged: vec![damaged], ..Default::default() }), Malformed::Negative);
        }
        for (partition, partition_epoch) in [(-1, 0), (0, -1)] {
            let seen = SeenPartition { topic_id: topic_id.clone(), partition, partition_epoch };
            assert_eq!(refused(HeartbeatRequest { seen: vec![seen], ..Default::default() }), Malformed::Negative);
        }
        let many = vec![proto::LogEnd { topic_id, ..Default::default() }; MAX_NAMED + 1];
        assert_eq!(refused(HeartbeatRequest { ends: many, ..Default::default() }), Malformed::TooMany);
    }
}
