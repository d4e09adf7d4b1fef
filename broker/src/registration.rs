//! The `Broker` object of this process: who it is, where it is reached, and which session of the broker it runs.
//!
//! Each start is a session with an incarnation of its own, higher than all before: the larger of what is registered and
//! what the volume remembers, plus one. The volume remembers it before it is registered, so that it is not taken twice
//! whatever becomes of the API (M11). What is in the object is decided in [`decide`]; `fenced` is the controller's.
//!
//! # Format
//!
//! Key `broker/registration`: JSON `{"v":1,"cluster":"<uuid>","broker":<n>,"incarnation":<n>,"registered":<n>}`: the cluster
//! and the number that the volume belongs to, the last incarnation that was taken, and the last that was registered, 0:
//! none.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use taffrail_crds::broker::Endpoint;
use taffrail_crds::cluster::Listener;
use taffrail_crds::id::Id;
use taffrail_crds::{Broker, BrokerSpec, CLUSTER_LABEL, ClusterSpec, FEATURE_LEVEL};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::brokers::INTERNAL;
use crate::context::Context;
use crate::metadata::{Event, Kind, MetadataError, MetadataStore, Object};
use crate::storage::{Identity, MetaStore, StorageError};
use decide::{Decision, Kept, register, session};

pub mod decide;
mod kept;
mod zone;

/// Pause before the API is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// Why this process must not run as the broker that it was started as.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegistrationError {
    /// The volume is another cluster's.
    #[error(
        "the data directory belongs to cluster {kept} and this is cluster {found}: give the broker the right volume, or an \
         empty one"
    )]
    OtherCluster {
        /// Id of the cluster that the volume remembers.
        kept: Uuid,
        /// Id of this cluster.
        found: Uuid,
    },
    /// The volume is another broker's.
    #[error(
        "the data directory belongs to broker {kept} and this is broker {own}: give each broker the volume that it had"
    )]
    OtherBroker {
        /// The number that the volume remembers.
        kept: i32,
        /// The number that was given.
        own: i32,
    },
    /// Another process has registered under this number.
    #[error(
        "another process has registered as {name} with incarnation {found}, after this one with {own}: two processes run \
         with one --broker-id, and this one gives way"
    )]
    Replaced {
        /// Name of the object.
        name: String,
        /// Incarnation of the other.
        found: i64,
        /// Incarnation of this one.
        own: i64,
    },
    /// What the volume remembers cannot be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What a registration needs.
pub struct Settings {
    /// Where the object is.
    pub store: Arc<dyn MetadataStore>,
    /// What the volume remembers.
    pub meta: Arc<dyn MetaStore>,
    /// Who the volume is, and how it was left.
    pub identity: Identity,
    /// Clock and randomness.
    pub context: Context,
    /// Name of the Cluster.
    pub cluster: String,
    /// Number of this broker.
    pub broker: i32,
    /// Where clients reach it, without a port.
    pub host: String,
    /// Where the other brokers do, and the port.
    pub internal: (String, u16),
    /// Ports for clients, as they are open, with the listener's name; none: as the Cluster calls that port.
    pub ports: Vec<(Option<String>, u16)>,
    /// File with the name of the zone.
    pub zone_file: Option<PathBuf>,
}

/// The cluster that the volume belongs to, if it does to any.
pub async fn cluster_of(meta: &Arc<dyn MetaStore>) -> Result<Option<Uuid>, StorageError> {
    Ok(kept::read(meta).await?.map(|kept| kept.cluster))
}

/// A broker that is registered, and stays so.
#[derive(Debug)]
pub struct Registration {
    /// Identity of the cluster.
    pub cluster_id: Uuid,
    /// Number of this session.
    pub incarnation: i64,
    /// The session that it continues with nothing lost.
    pub continues: Option<i64>,
    ended: watch::Receiver<Option<RegistrationError>>,
    newest: Arc<watch::Sender<i64>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Registration {
    /// Registers; waits for the API, and for the ClusterState that the first controller makes, for as long as it takes.
    pub async fn begin(settings: Settings) -> Result<Self, RegistrationError> {
        let shell = Shell::new(settings);
        let (own, cluster_id) = shell.begin().await?;
        let (incarnation, continues) = (own.incarnation, own.continues);
        let (told, ended) = watch::channel(None);
        let (stop, newest) = (CancellationToken::new(), Arc::new(watch::Sender::new(0)));
        let (stopped, known) = (stop.clone(), newest.subscribe());
        let task = tokio::spawn(async move {
            let name = shell.name.clone();
            let following = async {
                tokio::select! {
                    ended = shell.follow(own) => ended,
                    found = newer(known, incarnation) => {
                        Err(RegistrationError::Replaced { name, found, own: incarnation })
                    }
                }
            };
            if let Some(Err(error)) = stopped.run_until_cancelled(following).await {
                tracing::error!(%error, "this broker must not go on");
                told.send_replace(Some(error));
            }
        });
        Ok(Self { cluster_id, incarnation, continues, ended, newest, stop, task })
    }

    /// Where the newest session of this broker is told that others know of. One that is newer than this ends it, though it
    /// may not be able to see that for itself: the API refuses the token of a pod that was deleted while its node was cut
    /// off, and a watch may have died without a word.
    pub fn newest(&self) -> Arc<watch::Sender<i64>> {
        self.newest.clone()
    }

    /// Whether another process has taken the number, as far as is known.
    pub fn is_replaced(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Waits until this process must not go on, and why.
    pub async fn ended(&self) -> RegistrationError {
        let mut ended = self.ended.clone();
        loop {
            if let Some(error) = ended.borrow_and_update().clone() {
                return error;
            }
            if ended.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Follows nothing any more. The object stays.
    pub async fn stop(self) {
        self.stop.cancel();
        // It ended by a panic at worst, which was logged.
        let _ = self.task.await;
    }
}

/// Waits until others know of a newer session.
async fn newer(mut newest: watch::Receiver<i64>, own: i64) -> i64 {
    let found = newest.wait_for(|newest| *newest > own).await.map(|found| *found).ok();
    match found {
        Some(found) => found,
        None => std::future::pending().await,
    }
}

struct Shell {
    settings: Settings,
    name: String,
    boot: Uuid,
}

impl Shell {
    fn new(settings: Settings) -> Self {
        let name = format!("{}-{}", settings.cluster, settings.broker);
        // Where the kernel tells none, each process counts as a boot of its own.
        let boot = Uuid::try_parse(settings.context.clock().boot_id());
        let boot = boot.unwrap_or_else(|_| settings.context.random_uuid());
        Self { settings, name, boot }
    }

    async fn begin(&self) -> Result<(BrokerSpec, Uuid), RegistrationError> {
        let Settings { identity, broker, zone_file, .. } = &self.settings;
        let cluster_id = self.cluster_id().await;
        let kept = kept::read(&self.settings.meta).await?;
        decide::check_volume(kept.as_ref(), cluster_id, *broker)?;
        let mut zone = match zone_file {
            Some(file) if kept.is_none() => zone::wait(file).await,
            Some(file) => zone::read(file).await,
            None => None,
        };
        let mut kept = kept.unwrap_or(Kept { cluster: cluster_id, broker: *broker, incarnation: 0, registered: 0 });
        loop {
            let found = self.found().await;
            let before = found.as_ref().map(|(_, spec)| spec);
            if zone_file.is_some() {
                // A volume stays in its zone.
                zone = zone.or_else(|| before.and_then(|spec| spec.zone.clone()));
            }
            let (incarnation, continues) = session(&kept, before, identity);
            kept.incarnation = incarnation;
            kept::write(&self.settings.meta, &kept).await?;
            let own = self.spec(incarnation, continues, zone.clone()).await;
            let new = BrokerSpec { fenced: before.is_some_and(|spec| spec.fenced), ..own.clone() };
            if self.write(found.map(|(object, _)| object), &new).await {
                kept.registered = incarnation;
                kept::write(&self.settings.meta, &kept).await?;
                tracing::info!(broker = self.name, incarnation, continues, "registered");
                return Ok((own, cluster_id));
            }
            sleep(RETRY).await;
        }
    }

    /// Keeps the object as it should be, until another process takes the number.
    async fn follow(&self, mut own: BrokerSpec) -> Result<(), RegistrationError> {
        let mut events = self.settings.store.watch(Kind::Broker);
        let mut zones = zone::follow(self.settings.zone_file.clone(), own.zone.clone());
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Event::Applied(object) | Event::Deleted(object)) if object.name != self.name => continue,
                    Some(_) => {}
                    // The reader fell behind.
                    None => {
                        sleep(RETRY).await;
                        events = self.settings.store.watch(Kind::Broker);
                    }
                },
                Some(zone) = zones.next() => own.zone = Some(zone),
            }
            self.settle(&own).await?;
        }
    }

    /// Writes the object until it is as it should be.
    async fn settle(&self, own: &BrokerSpec) -> Result<(), RegistrationError> {
        loop {
            let found = self.found().await;
            match register(&self.name, own, found.as_ref().map(|(_, spec)| spec)) {
                Decision::Keep => return Ok(()),
                Decision::Refuse(error) => return Err(error),
                Decision::Write(new) => {
                    if self.write(found.map(|(object, _)| object), &new).await {
                        tracing::info!(broker = self.name, incarnation = new.incarnation, "registered again");
                        return Ok(());
                    }
                }
            }
            sleep(RETRY).await;
        }
    }

    async fn cluster_id(&self) -> Uuid {
        loop {
            let state = self.settings.store.get(Kind::ClusterState, &self.settings.cluster).await;
            let id = |object: &Object| Uuid::try_parse(object.document["spec"]["clusterId"].as_str()?).ok();
            match state {
                Ok(object) => {
                    if let Some(id) = object.as_ref().and_then(id) {
                        return id;
                    }
                    tracing::info!("waiting for the first controller of the cluster");
                }
                Err(error) => tracing::warn!(%error, "waiting for the metadata"),
            }
            sleep(RETRY).await;
        }
    }

    /// The object as it is, by a quorum read.
    async fn found(&self) -> Option<(Object, BrokerSpec)> {
        loop {
            match self.settings.store.get(Kind::Broker, &self.name).await {
                Ok(None) => return None,
                Ok(Some(object)) => match serde_json::from_value::<Broker>(object.document.clone()) {
                    Ok(broker) => return Some((object, broker.spec)),
                    Err(error) => tracing::error!(broker = self.name, %error, "the registration cannot be understood"),
                },
                Err(error) => tracing::warn!(%error, "waiting for the metadata"),
            }
            sleep(RETRY).await;
        }
    }

    /// Whether it was written; otherwise it is to be read again.
    async fn write(&self, found: Option<Object>, spec: &BrokerSpec) -> bool {
        let store = &self.settings.store;
        let written = match found {
            None => store.create(Kind::Broker, &self.name, self.document(spec)).await,
            Some(mut object) => {
                // Labels and annotations of others stay.
                object.document["spec"] = self.document(spec)["spec"].take();
                object.document["metadata"]["labels"][CLUSTER_LABEL] = self.settings.cluster.clone().into();
                store.replace(&object).await
            }
        };
        match written {
            Ok(_) => true,
            Err(MetadataError::Conflict { .. } | MetadataError::Exists { .. } | MetadataError::NotFound { .. }) => {
                false
            }
            Err(error) => {
                tracing::warn!(%error, "this broker's registration was not written: trying again");
                false
            }
        }
    }

    fn document(&self, spec: &BrokerSpec) -> serde_json::Value {
        let mut broker = Broker::new(&self.name, spec.clone());
        broker.metadata.labels = Some([(CLUSTER_LABEL.to_owned(), self.settings.cluster.clone())].into());
        serde_json::to_value(broker).expect("it has string keys only")
    }

    async fn spec(&self, incarnation: i64, continues: Option<i64>, zone: Option<String>) -> BrokerSpec {
        let Settings { identity, cluster, broker, host, internal, ports, .. } = &self.settings;
        BrokerSpec {
            cluster_name: cluster.clone(),
            id: *broker,
            incarnation,
            continues,
            storage_id: Id(identity.storage),
            boot_id: Id(self.boot),
            zone,
            endpoints: endpoints(host, internal, ports, &self.listeners().await),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            feature_level: FEATURE_LEVEL,
            fenced: false,
        }
    }

    /// Those of the Cluster object, or of a Cluster that says nothing of them.
    async fn listeners(&self) -> Vec<Listener> {
        let cluster = self.settings.store.get(Kind::Cluster, &self.settings.cluster).await;
        let cluster = cluster.unwrap_or_else(|error| {
            tracing::warn!(%error, "the Cluster object was not read: listeners are named by their ports");
            None
        });
        let spec = cluster.and_then(|object| serde_json::from_value(object.document.get("spec")?.clone()).ok());
        spec.map_or_else(|| vec![Listener::default()], |spec: ClusterSpec| spec.listeners())
    }
}

/// Where the broker is reached: listeners without a name are known to the Cluster by their ports.
fn endpoints(
    host: &str,
    (internal_host, internal): &(String, u16),
    ports: &[(Option<String>, u16)],
    listeners: &[Listener],
) -> Vec<Endpoint> {
    let endpoint =
        |listener: String, host: &str, port: u16| Endpoint { listener, host: host.to_owned(), port: port.into() };
    let by_port = |port: u16| {
        let listener = listeners.iter().find(|listener| listener.port == i32::from(port));
        listener.map_or_else(|| format!("port-{port}"), |listener| listener.name.clone())
    };
    let clients = ports.iter().map(|(name, port)| {
        let name = name.clone().unwrap_or_else(|| by_port(*port));
        endpoint(name, host, *port)
    });
    std::iter::once(endpoint(INTERNAL.to_owned(), internal_host, *internal)).chain(clients).collect()
}

#[cfg(test)]
mod tests;
