//! The brokers of the cluster, as they are registered: who there is, and where each is reached.
//!
//! One immutable [`Image`] holds them all; a change publishes a new one. A broker that runs alone is the only one in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::server::Network;

/// Number of a broker that runs alone.
pub const ALONE: i32 = 0;
/// Name of the listener that brokers use among themselves.
pub const INTERNAL: &str = "internal";

/// A broker of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Number of the broker.
    pub id: i32,
    /// Its session.
    pub incarnation: i64,
    /// Neither leads nor is in sync.
    pub fenced: bool,
    /// It is about to go, and takes nothing new.
    pub draining: bool,
    /// Zone of its node.
    pub zone: Option<String>,
    /// `host:port` by listener.
    pub endpoints: BTreeMap<String, String>,
    /// Version of its program.
    pub version: String,
}

impl Registered {
    /// It was drained and has stopped. Its registration stays, so that no session of this number is counted twice.
    pub fn is_gone(&self) -> bool {
        self.draining && self.fenced
    }
}

/// Where the others reach a broker. Another session is another place, be it at the same address: its process knows nothing
/// of what the one before was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its session.
    pub incarnation: i64,
    /// `host:port` of its [`INTERNAL`] listener.
    pub address: String,
}

/// All brokers at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// By number.
    pub brokers: BTreeMap<i32, Registered>,
}

impl Image {
    /// `host:port` of a broker, on a listener.
    pub fn endpoint(&self, broker: i32, listener: &str) -> Option<&str> {
        self.brokers.get(&broker)?.endpoints.get(listener).map(String::as_str)
    }

    /// Where the others reach a broker now.
    pub fn place(&self, broker: i32) -> Option<Place> {
        let address = self.endpoint(broker, INTERNAL)?.to_owned();
        Some(Place { incarnation: self.brokers.get(&broker)?.incarnation, address })
    }
}

/// The current [`Image`], and which of them this one is.
#[derive(Debug)]
pub struct Brokers {
    me: i32,
    cluster_id: String,
    network: Network,
    image: ArcSwap<Image>,
    changed: watch::Sender<u64>,
}

impl Brokers {
    /// Of the cluster of this id (a UUID), with this broker's number.
    pub fn new(me: i32, cluster_id: String) -> Arc<Self> {
        Self::on(Network::TCP, me, cluster_id)
    }

    /// The same, reached on that network.
    pub fn on(network: Network, me: i32, cluster_id: String) -> Arc<Self> {
        Arc::new(Self { me, cluster_id, network, image: ArcSwap::default(), changed: watch::Sender::new(0) })
    }

    /// Of a broker that is the only one of its cluster.
    pub fn alone(cluster_id: String) -> Arc<Self> {
        let brokers = Self::new(ALONE, cluster_id);
        let broker = Registered {
            id: ALONE,
            incarnation: 0,
            fenced: false,
            draining: false,
            zone: None,
            endpoints: BTreeMap::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        brokers.publish(Image { brokers: BTreeMap::from([(ALONE, broker)]) });
        brokers
    }

    /// Number of this broker.
    pub fn me(&self) -> i32 {
        self.me
    }

    /// Identity of the cluster.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// The network on which they are reached.
    pub fn network(&self) -> Network {
        self.network
    }

    /// All brokers as they are now; cheap, never blocks.
    pub fn image(&self) -> Arc<Image> {
        self.image.load_full()
    }

    /// Tells of each change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Publishes another image, if it differs.
    pub fn publish(&self, image: Image) {
        if **self.image.load() != image {
            self.image.store(Arc::new(image));
            self.changed.send_modify(|revision| *revision += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once() {
        let brokers = Brokers::new(1, "id".to_owned());
        let told = brokers.subscribe();
        let endpoints = BTreeMap::from([(INTERNAL.to_owned(), "main-1:9093".to_owned())]);
        let broker = Registered {
            id: 1,
            incarnation: 7,
            fenced: false,
            draining: false,
            zone: None,
            endpoints,
            version: "0.1.0".to_owned(),
        };
        let image = Image { brokers: BTreeMap::from([(1, broker)]) };
        brokers.publish(image.clone());
        brokers.publish(image);
        assert_eq!(*told.borrow(), 1);
        assert_eq!(brokers.image().endpoint(1, INTERNAL), Some("main-1:9093"));
        assert_eq!(brokers.image().endpoint(2, INTERNAL), None);
        let place = Place { incarnation: 7, address: "main-1:9093".to_owned() };
        assert_eq!((brokers.image().place(1), brokers.image().place(2)), (Some(place), None));
    }
}
