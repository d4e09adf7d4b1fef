//! A broker's life in a cluster: from what it finds of the cluster to what it serves of it, and back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use taffrail_crds::{BrokerSpec, PartitionState};
use taffrail_proto::internal::v1::controller_server::ControllerServer;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Session;
use super::controller::liveness::{Beat, Liveness};
use super::controller::task;
use super::heartbeat::{self, Links, Purger};
use super::image::{Identity, Image};
use super::purge::OwnData;
use super::serving::{self, Kept, Outcome, Serving};
use crate::brokers::{self, Brokers, Registered};
use crate::context::Context;
use crate::election::Leadership;
use crate::metadata::MetadataStore;
use crate::metrics::{ControllerMetrics, ReplicationMetrics};
use crate::peers::Peers;
use crate::replication::proposals::ByPartition;
use crate::storage::{Storage, StorageError};
use crate::topics::Topics;

/// When what could not be served is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What a member stands on.
pub struct Parts {
    /// Clock and randomness.
    pub context: Context,
    /// Which cluster.
    pub identity: Identity,
    /// Its objects.
    pub store: Arc<dyn MetadataStore>,
    /// The same, as followed; complete.
    pub image: watch::Receiver<Arc<Image>>,
    /// Whether this broker acts as controller.
    pub leadership: watch::Receiver<Leadership>,
    /// Told of epochs in which somebody else has become controller since.
    pub deposed: mpsc::UnboundedSender<i32>,
    /// How long a broker may be silent.
    pub session_timeout: Duration,
    /// The logs.
    pub storage: Arc<dyn Storage>,
    /// Where what is served is published.
    pub topics: Arc<Topics>,
    /// The registry of brokers, of this cluster.
    pub brokers: Arc<Brokers>,
    /// Where others lead.
    pub peers: Arc<Peers>,
    /// This broker as it is registered.
    pub me: Session,
    /// What is counted of it as controller.
    pub controller: ControllerMetrics,
    /// What is counted of replication.
    pub metrics: ReplicationMetrics,
    /// The newest session of this broker that others know of.
    pub newest: Arc<watch::Sender<i64>>,
}

/// A broker that takes part.
pub struct Member {
    me: Session,
    own: watch::Sender<Beat>,
    image: watch::Receiver<Arc<Image>>,
    kept: Arc<Mutex<Kept>>,
    /// It is about to stop.
    leaving: Arc<AtomicBool>,
    stop: CancellationToken,
    serving: JoinHandle<Serving>,
    jobs: Vec<JoinHandle<()>>,
}

impl Member {
    /// Takes part: is heard, serves what it is given, acts as controller when elected. Answers also what serves the internal
    /// calls of others. Blocks for a moment.
    pub fn join(parts: Parts) -> Result<(Self, ControllerServer<heartbeat::Service>), StorageError> {
        let Parts {
            context,
            identity,
            store,
            image,
            leadership,
            deposed,
            session_timeout,
            storage,
            topics,
            brokers,
            peers,
            me,
            controller,
            metrics,
            newest,
        } = parts;
        let stop = CancellationToken::new();
        let liveness = Arc::new(Mutex::new(Liveness::new(me.broker, session_timeout)));
        let (own, told) = watch::channel(Beat { incarnation: me.incarnation, ..Beat::default() });
        let links = Links::new(brokers.clone(), session_timeout / 2);
        brokers.publish(registry(&image.borrow()));
        let serving = Serving::new(serving::Parts {
            context: context.clone(),
            storage: storage.clone(),
            store: store.clone(),
            topics,
            peers,
            me,
            metrics,
        })?;
        let kept = serving.kept();
        let own_data = OwnData {
            context: context.clone(),
            storage,
            kept: kept.clone(),
            store: store.clone(),
            image: image.clone(),
        };
        let own_data: Arc<dyn Purger> = Arc::new(own_data);
        let acting = leadership.clone();
        let service = heartbeat::Service {
            me: me.broker,
            context: context.clone(),
            liveness: liveness.clone(),
            brokers: brokers.clone(),
            acting: Arc::new(move || matches!(*acting.borrow(), Leadership::Acting { .. })),
            purge: own_data.clone(),
        };
        let interval = session_timeout / heartbeat::INTERVAL;
        let purger = Arc::new(Everyone { me: me.broker, own: own_data, others: links.clone() });
        let teller = heartbeat::Teller { links, context: context.clone(), me, liveness: liveness.clone(), newest };
        let telling = heartbeat::tell(teller, told, interval, stop.clone());
        let control = task::Parts {
            context,
            identity,
            store,
            image: image.clone(),
            leadership,
            deposed,
            liveness,
            kept: kept.clone(),
            purger,
            metrics: controller,
        };
        let jobs = vec![
            tokio::spawn(telling),
            tokio::spawn(task::run(control, stop.clone())),
            tokio::spawn(follow_brokers(image.clone(), brokers, stop.clone())),
        ];
        let leaving = Arc::<AtomicBool>::default();
        let telling = Telling { own: own.clone(), leaving: leaving.clone() };
        let serving = tokio::spawn(follow_image(serving, image.clone(), telling, stop.clone()));
        Ok((Self { me, own, image, kept, leaving, stop, serving, jobs }, ControllerServer::new(service)))
    }

    /// What this broker keeps of the cluster's metadata.
    pub fn kept(&self) -> Arc<Mutex<Kept>> {
        self.kept.clone()
    }

    /// Tells the others that this broker is about to stop, and waits until nobody waits for it any more: until other replicas
    /// lead what it led, and have taken it out of the in-sync replicas wherever enough are left. Not longer than `patience`.
    pub async fn hand_over(&self, patience: Duration) {
        self.leaving.store(true, Ordering::Relaxed);
        self.own.send_modify(|beat| beat.stopping = true);
        let (mut image, me) = (self.image.clone(), self.me.broker);
        let handed_over = image.wait_for(|image| needs(image, me) == 0);
        let waited = tokio::time::timeout(patience, handed_over).await.is_err();
        let left = needs(&self.image.borrow(), me);
        if waited && left > 0 {
            tracing::warn!(partitions = left, "stops before others have taken its partitions over");
        }
    }

    /// Ends serving and is not heard any more.
    pub async fn leave(self) {
        self.stop.cancel();
        match self.serving.await {
            Ok(mut serving) => serving.stop().await,
            Err(error) => tracing::error!(%error, "what serves the cluster's partitions ended badly"),
        }
        for job in self.jobs {
            if let Err(error) = job.await {
                tracing::error!(%error, "a part of the cluster's member ended badly");
            }
        }
    }
}

/// Partitions that this broker is needed for though others could do without it.
fn needs(image: &Image, me: i32) -> usize {
    let partitions = image.slices.values().flat_map(|slice| &slice.spec.partitions);
    let is_needed = |state: &&PartitionState| {
        let others = state.isr.iter().filter(|replica| replica.broker != me).count();
        others < state.isr.len() && others >= state.min_in_sync_replicas as usize
    };
    partitions.filter(is_needed).count()
}

/// Serves what each image says, and tells the controller what it must know of it.
async fn follow_image(
    mut serving: Serving,
    mut image: watch::Receiver<Arc<Image>>,
    telling: Telling,
    stop: CancellationToken,
) -> Serving {
    let mut proposals = serving.proposals().follow();
    let (mut newest, mut is_new) = (image.borrow_and_update().clone(), true);
    loop {
        if is_new {
            let outcome = serving.follow(&newest).await;
            is_new = outcome == Outcome::TryAgain;
        }
        if !is_new {
            serving.clean(&newest).await;
        }
        telling.tell(&serving, &mut proposals);
        serving.keep_watermarks().await;
        tokio::select! {
            changed = image.changed() => {
                if changed.is_err() {
                    return serving;
                }
                (newest, is_new) = (image.borrow_and_update().clone(), true);
            }
            // Ends with `serving` only.
            Ok(()) = proposals.changed() => {}
            () = tokio::time::sleep(TRY_AGAIN) => {}
            () = stop.cancelled() => return serving,
        }
    }
}

/// What the controller is told of this broker.
struct Telling {
    own: watch::Sender<Beat>,
    leaving: Arc<AtomicBool>,
}

impl Telling {
    fn tell(&self, serving: &Serving, proposals: &mut watch::Receiver<ByPartition>) {
        let takes_records = serving.takes_records();
        let next = Beat {
            faults: serving.faults(),
            damaged: serving.damaged(),
            recovered: serving.recovered(),
            ends: serving.ends(),
            seen: serving.seen(),
            proposals: proposals.borrow_and_update().clone(),
            ..self.own.borrow().clone()
        };
        self.own.send_if_modified(|beat| {
            if !takes_records && !beat.stopping {
                tracing::warn!("its storage takes no records: others are to lead and to go on without it");
            }
            // It may have begun to stop meanwhile.
            let next = Beat { stopping: !takes_records || self.leaving.load(Ordering::Relaxed), ..next };
            let changed = *beat != next;
            *beat = next;
            changed
        });
    }
}

async fn follow_brokers(mut image: watch::Receiver<Arc<Image>>, brokers: Arc<Brokers>, stop: CancellationToken) {
    loop {
        brokers.publish(registry(&image.borrow_and_update()));
        tokio::select! {
            changed = image.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

/// The registrations as the rest of the broker reads them.
fn registry(image: &Image) -> brokers::Image {
    let wanted = image.cluster.as_ref().map_or(i32::MAX, |cluster| cluster.spec.spec.replicas);
    let registered = |spec: &BrokerSpec| {
        let endpoints = spec.endpoints.iter().map(|at| (at.listener.clone(), at.authority()));
        Registered {
            id: spec.id,
            incarnation: spec.incarnation,
            fenced: spec.fenced,
            draining: spec.id >= wanted,
            zone: spec.zone.clone(),
            endpoints: endpoints.collect(),
            version: spec.version.clone(),
        }
    };
    let brokers: BTreeMap<_, _> = image.brokers.iter().map(|(id, stored)| (*id, registered(&stored.spec))).collect();
    brokers::Image { brokers }
}

/// Purges here or elsewhere.
struct Everyone {
    me: i32,
    own: Arc<dyn Purger>,
    others: Links,
}

impl Purger for Everyone {
    fn purge(
        &self,
        broker: i32,
        topic: uuid::Uuid,
        controller_epoch: i32,
    ) -> futures::future::BoxFuture<'_, Result<(), String>> {
        if broker == self.me {
            self.own.purge(broker, topic, controller_epoch)
        } else {
            self.others.purge(broker, topic, controller_epoch)
        }
    }
}
