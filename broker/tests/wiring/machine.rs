//! The machines of brokers: what is left of one when its process dies, and how it is started again.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use taffrail_broker::broker::simulated::Machine;
use taffrail_broker::clock::ManualClock;
use taffrail_broker::config::{ClusterConfig, Config, ListenAddress, LogFormat, Memory};
use taffrail_broker::context::Context;
use taffrail_broker::dev::{CLUSTER, NAMESPACE, Objects};
use taffrail_broker::storage::Storage as _;
use taffrail_broker::storage::memory::Disk;
use taffrail_crds::duration::Duration as Time;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::api::{Lease, Store, Way, Ways};
use super::network::network;

/// Port for clients.
pub(crate) const CLIENTS: u16 = 9094;
/// Port for other brokers.
const BROKERS: u16 = 9093;
/// When simulations begin: milliseconds since 1970.
pub(crate) const BEGIN: i64 = 1_750_000_000_000;

/// The machine of one broker.
pub(crate) struct BrokerMachine {
    id: i32,
    seed: u64,
    session: Duration,
    objects: Objects,
    pub(crate) name: String,
    pub(crate) disk: Disk,
    /// What reaches the API.
    pub(crate) ways: Ways,
    /// Of this boot.
    clock: Mutex<ManualClock>,
    /// Tells the process that runs to stop.
    stop: Mutex<CancellationToken>,
    boots: AtomicU64,
    starts: AtomicU64,
}

/// Name of a broker's host.
pub(crate) fn broker_name(id: i32) -> String {
    format!("broker-{id}")
}

impl BrokerMachine {
    pub(crate) fn new(id: i32, seed: u64, session: Duration, objects: Objects) -> Self {
        Self {
            id,
            seed,
            session,
            objects,
            name: broker_name(id),
            disk: Disk::new(),
            ways: Arc::new(watch::Sender::new(Way::Open)),
            clock: Mutex::new(clock_of(id, 0, BEGIN)),
            stop: Mutex::default(),
            boots: AtomicU64::new(0),
            starts: AtomicU64::new(0),
        }
    }

    /// Its program, from a start to its end.
    pub(crate) async fn run(self: Arc<Self>) -> turmoil::Result {
        let stop = CancellationToken::new();
        *self.stop.lock() = stop.clone();
        let storage = self.disk.open();
        let clock = Arc::new(self.clock.lock().clone());
        let start = self.starts.fetch_add(1, Relaxed);
        let seed = self.seed ^ (start << 32) ^ ((self.id as u64) << 56);
        let context = Context::seeded(clock, seed, &*storage.meta())?;
        let machine = Machine {
            config: config(),
            cluster: self.cluster(),
            storage,
            context,
            network: network(),
            store: Arc::new(Store { inner: self.objects.store(), ways: self.ways.clone(), end: None }),
            lease: Arc::new(Lease { inner: self.objects.lease(), ways: self.ways.clone() }),
        };
        Box::pin(machine.run(stop)).await?;
        Ok(())
    }

    /// Has the process stop in good order.
    pub(crate) fn stop(&self) {
        self.stop.lock().cancel();
    }

    /// Lets time pass.
    pub(crate) fn advance(&self, by: Duration) {
        self.clock.lock().advance(by);
    }

    /// Sets the wall clock.
    pub(crate) fn step_wall(&self, by_millis: i64) {
        self.clock.lock().step_wall(by_millis);
    }

    /// The power was away: another boot, and nobody knows whether all is there that was written last.
    pub(crate) fn lose_power(&self, wall_millis: i64) {
        self.disk.set_incomplete();
        *self.clock.lock() = clock_of(self.id, self.boots.fetch_add(1, Relaxed) + 1, wall_millis);
    }

    fn cluster(&self) -> ClusterConfig {
        let part = |part: f64| Time::from_millis(self.session.mul_f64(part).as_millis() as u64);
        ClusterConfig {
            cluster: CLUSTER.to_owned(),
            namespace: NAMESPACE.to_owned(),
            broker_id: self.id,
            advertise_host: self.name.clone(),
            internal_host: Some(self.name.clone()),
            internal_listen: everywhere(BROKERS),
            zone_file: None,
            session_timeout: part(1.0),
            lease_duration: part(1.0),
            renew_deadline: part(0.7),
            retry_period: part(0.2),
            kubeconfig: None,
        }
    }
}

/// One that starts with its boot. Machines disagree by some seconds.
fn clock_of(id: i32, boot: u64, wall_millis: i64) -> ManualClock {
    let boot_id = Uuid::from_u64_pair(1 + id as u64, boot).to_string();
    ManualClock::new(wall_millis + i64::from(id) * 1_700, &boot_id)
}

fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
}

fn config() -> Config {
    Config {
        data_dir: PathBuf::from("simulated"),
        listen: vec![ListenAddress::from(everywhere(CLIENTS))],
        admin_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        memory_limit: "1GiB".parse::<Memory>().unwrap(),
        token_file: None,
        allow_anonymous: true,
        default_partitions: 1,
        log_format: LogFormat::Human,
        log_level: "info".parse().unwrap(),
        manifest: None,
        cluster: None,
        dev: None,
    }
}
