//! The part of a broker's start and stop that belongs to a cluster.
//!
//! Start: the cluster's objects are followed → the election is entered → the broker registers → it is heard, and serves what
//! it is given → the internal listener → as alone from here: jobs, listeners for clients, ready. Stop is the reverse, and
//! says first that it comes.

use std::sync::Arc;
use std::time::Duration;

use taffrail_crds::ClusterSpec;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{BrokerError, DRAIN, Process, in_background, show_partitions, show_replication};
use crate::brokers::Brokers;
use crate::cluster::Session;
use crate::cluster::follow::follow;
use crate::cluster::image::{Identity, Image};
use crate::cluster::member::{Member, Parts};
use crate::cluster::topics::ClusterTopics;
use crate::config::ClusterConfig;
use crate::context::Context;
use crate::coordinator::groups::Groups;
use crate::coordinator::runtime::Limits;
use crate::election::{self, Election, KubernetesLease, LeaseApi};
use crate::metadata::kubernetes::client;
use crate::metadata::{KubernetesStore, MetadataStore};
use crate::open_files;
use crate::peers::Peers;
use crate::producer_ids::ProducerIds;
use crate::readiness::Phase;
use crate::registration::{self, Registration};
use crate::security::Authenticator;
use crate::server::{self, Listener};
use crate::service::{self, LastSeen};
use crate::storage::{FORMAT_VERSION, Storage};
use crate::topics::Topics;

/// How long others may take to lead what this broker led: the controller may have to be elected first. With the draining that
/// follows it is within the time that the operator gives a pod.
const HAND_OVER: Duration = Duration::from_secs(15);

/// The listener for clients, where there is but one.
const DEFAULT_LISTENER: &str = "grpc";

/// The cluster as it is followed.
struct Followed<'a> {
    settings: &'a ClusterConfig,
    identity: Identity,
    context: Context,
    store: Arc<dyn MetadataStore>,
    lease: Arc<dyn LeaseApi>,
    image: watch::Receiver<Arc<Image>>,
}

impl Process {
    /// Takes part in the cluster that `settings` name.
    pub(super) async fn with_cluster(
        &self,
        settings: &ClusterConfig,
        storage: &Arc<dyn Storage>,
        authenticator: Authenticator,
    ) -> Result<(), BrokerError> {
        self.subjects.readiness.set(Phase::Starting("reading the cluster's metadata"));
        let context = if let Some(context) = self.context.clone() {
            context
        } else {
            let meta = storage.meta();
            in_background("reading log time", move || Context::system(&*meta)).await??
        };
        let identity = Identity { cluster: settings.cluster.clone(), namespace: settings.namespace.clone() };
        let stop = CancellationToken::new();
        let (store, lease) = self.metadata(settings, &identity, &stop).await?;
        let (images, image) = watch::channel(Arc::default());
        let following = tokio::spawn(follow(identity.clone(), store.clone(), images, stop.clone()));
        let followed = Followed { settings, identity, context, store, lease, image };
        let outcome = Box::pin(self.with_election(followed, storage, authenticator)).await;
        stop.cancel();
        following.await?;
        outcome
    }

    /// Where the cluster's objects are, and its Lease. Until `stop` it is noticed if they go back in time.
    async fn metadata(
        &self,
        settings: &ClusterConfig,
        identity: &Identity,
        stop: &CancellationToken,
    ) -> Result<(Arc<dyn MetadataStore>, Arc<dyn LeaseApi>), BrokerError> {
        if let Some(embedded) = &self.embedded {
            return Ok((embedded.store.clone(), embedded.lease.clone()));
        }
        let client = client::connect(settings.kubeconfig.as_deref()).await?;
        let Identity { cluster, namespace } = identity;
        let metrics = self.subjects.metrics.metadata.clone();
        let lease = KubernetesLease::new(client.clone(), namespace, cluster);
        let store = Arc::new(KubernetesStore::new(client, namespace, cluster, metrics));
        let (noticing, stop) = (store.clone(), stop.clone());
        tokio::spawn(async move { stop.run_until_cancelled(noticing.notice_rewinds()).await });
        Ok((store, Arc::new(lease)))
    }

    async fn with_election(
        &self,
        mut followed: Followed<'_>,
        storage: &Arc<dyn Storage>,
        authenticator: Authenticator,
    ) -> Result<(), BrokerError> {
        let complete = followed.image.wait_for(|image| image.complete);
        if self.stop.run_until_cancelled(complete).await.is_none() {
            return Ok(());
        }
        let Followed { settings, identity, context, store, lease, .. } = &followed;
        let election = Election::start(election::Settings {
            lease: lease.clone(),
            store: store.clone(),
            meta: storage.meta(),
            context: context.clone(),
            cluster: identity.cluster.clone(),
            broker: settings.broker_id,
            pod: format!("{}-{}", identity.cluster, settings.broker_id),
            times: election::Times {
                lease: settings.lease_duration.as_std(),
                renew_deadline: settings.renew_deadline.as_std(),
                retry: settings.retry_period.as_std(),
            },
        });
        self.subjects.readiness.set(Phase::Starting("registering"));
        let begun = Registration::begin(self.registration(&followed, storage));
        let outcome = match self.stop.run_until_cancelled(begun).await {
            None => Ok(()),
            Some(Err(error)) => Err(error.into()),
            Some(Ok(registration)) => {
                let running = Box::pin(self.with_member(&followed, &election, &registration, storage, authenticator));
                let outcome = self.until_replaced(&registration, running).await;
                registration.stop().await;
                outcome
            }
        };
        election.stop().await;
        outcome
    }

    fn registration(&self, followed: &Followed<'_>, storage: &Arc<dyn Storage>) -> registration::Settings {
        let settings = followed.settings;
        let host = settings.advertise_host.clone();
        let ports = self.config.listen.iter().map(|listen| listen.socket_address().port());
        let internal_host = match &settings.internal_host {
            Some(host) => host.clone(),
            // Brokers of one process reach each other on this machine, wherever clients come from.
            None if self.embedded.is_some() => settings.internal_listen.ip().to_string(),
            None => host.clone(),
        };
        registration::Settings {
            store: followed.store.clone(),
            meta: storage.meta(),
            identity: storage.identity(),
            context: followed.context.clone(),
            cluster: settings.cluster.clone(),
            broker: settings.broker_id,
            host,
            internal: (internal_host, settings.internal_listen.port()),
            ports: ports.map(|port| (self.listener_name(), port)).collect(),
            zone_file: settings.zone_file.clone(),
        }
    }

    /// Another process with this broker's number ends this one, in good order.
    async fn until_replaced(
        &self,
        registration: &Registration,
        mut running: impl Future<Output = Result<(), BrokerError>> + Unpin,
    ) -> Result<(), BrokerError> {
        tokio::select! {
            outcome = &mut running => outcome,
            replaced = registration.ended() => {
                self.stop.cancel();
                running.await.and(Err(replaced.into()))
            }
        }
    }

    async fn with_member(
        &self,
        followed: &Followed<'_>,
        election: &Election,
        registration: &Registration,
        storage: &Arc<dyn Storage>,
        authenticator: Authenticator,
    ) -> Result<(), BrokerError> {
        let Followed { settings, identity, context, store, image, .. } = followed;
        // The registration says what this start cannot vouch for: whatever it leads, it leads under a higher epoch (D7).
        let marked = storage.clone();
        in_background("noting the registration", move || marked.mark_complete()).await??;
        let topics = Topics::new();
        show_partitions(&self.subjects.metrics, &topics);
        show_replication(&self.subjects.metrics, &topics, settings.broker_id);
        let brokers = Brokers::on(self.network, settings.broker_id, registration.cluster_id.to_string());
        let memory_limit = self.config.memory_limit.bytes() as usize;
        let peers = Peers::new(brokers.clone(), memory_limit);
        let parts = Parts {
            context: context.clone(),
            identity: identity.clone(),
            store: store.clone(),
            image: image.clone(),
            leadership: election.leadership(),
            deposed: election.deposed(),
            session_timeout: settings.session_timeout.as_std(),
            storage: storage.clone(),
            topics: topics.clone(),
            brokers: brokers.clone(),
            peers: peers.clone(),
            me: Session { broker: settings.broker_id, incarnation: registration.incarnation },
            controller: self.subjects.metrics.controller.clone(),
            metrics: self.subjects.metrics.replication.clone(),
            newest: registration.newest(),
        };
        let (member, control) = in_background("joining the cluster", move || Member::join(parts)).await??;
        let (meta, objects, cluster) = (storage.meta(), store.clone(), identity.cluster.clone());
        let ids = move || ProducerIds::of_cluster(meta, objects, &cluster);
        let producer_ids = in_background("reading producer ids", ids).await??;
        let groups = Groups::start(context, &topics, Limits::default());
        let controller =
            ClusterTopics::new(context.clone(), identity.clone(), store.clone(), image.clone(), topics.clone());
        let broker = Arc::new(service::Broker {
            context: context.clone(),
            brokers,
            peers,
            storage: storage.clone(),
            topics,
            groups: groups.clone(),
            controller,
            metrics: self.subjects.metrics.clone(),
            producer_ids,
            data_dir: self.config.data_dir.display().to_string(),
            format_version: FORMAT_VERSION,
            default_partitions: self.config.default_partitions,
            last_seen: Some(LastSeen { cluster: identity.cluster.clone(), kept: member.kept() }),
        });
        let shutdown = CancellationToken::new();
        let internal = server::serve_internal(
            settings.internal_listen,
            service::internal_routes(&broker).add_service(control),
            self.server_options(&authenticator, Vec::new()),
            &self.subjects.metrics,
            shutdown.clone(),
        );
        let outcome = match internal.await {
            Ok(internal) => {
                let spec = image.borrow().cluster.as_ref().map(|cluster| cluster.spec.spec.clone());
                let listeners = self.listeners(spec.as_ref());
                let handed_over = CancellationToken::new();
                let outcome = tokio::select! {
                    outcome = self.with_jobs(broker, None, listeners, authenticator, &handed_over) => outcome,
                    () = self.hand_over(&member, registration, &handed_over) => unreachable!("it waits for ever once it is done"),
                };
                shutdown.cancel();
                internal.stopped().await;
                outcome
            }
            Err(error) => Err(error.into()),
        };
        groups.stop().await;
        member.leave().await;
        outcome
    }

    /// Gives away what the broker leads once it is to stop, while it goes on to serve; then says so. One that has been
    /// replaced has nothing to give away, and must not serve a moment longer.
    async fn hand_over(&self, member: &Member, registration: &Registration, handed_over: &CancellationToken) {
        self.stop.cancelled().await;
        self.subjects.readiness.set(Phase::Draining);
        let handing_over = member.hand_over(HAND_OVER);
        match &self.embedded {
            _ if registration.is_replaced() => {}
            Some(embedded) => drop(embedded.all_stop.run_until_cancelled(handing_over).await),
            None => handing_over.await,
        }
        handed_over.cancel();
        std::future::pending::<()>().await;
    }

    /// The name of all listeners, where it does not come from their ports: in one process brokers have different ones.
    fn listener_name(&self) -> Option<String> {
        self.embedded.is_some().then(|| DEFAULT_LISTENER.to_owned())
    }

    /// The listeners for clients, by the names that the Cluster gives to their ports.
    fn listeners(&self, spec: Option<&ClusterSpec>) -> Vec<Listener> {
        let known = spec.map(ClusterSpec::listeners).unwrap_or_default();
        let named = |address: std::net::SocketAddr| {
            let known = known.iter().find(|listener| listener.port == i32::from(address.port()));
            let by_port = || known.map_or_else(|| format!("port-{}", address.port()), |known| known.name.clone());
            Listener {
                name: self.listener_name().unwrap_or_else(by_port).into(),
                address,
                exposed: known.is_some_and(|known| known.expose.is_some()),
            }
        };
        self.config.listen.iter().map(|listen| named(listen.socket_address())).collect()
    }

    /// What holds for all listeners.
    pub(super) fn server_options(&self, authenticator: &Authenticator, listen: Vec<Listener>) -> server::Options {
        server::Options {
            listen,
            max_connections: open_files::max_connections(self.open_files),
            memory_limit: self.config.memory_limit.bytes() as usize,
            drain_timeout: DRAIN,
            authenticator: authenticator.clone(),
            network: self.network,
            ..server::Options::default()
        }
    }
}
