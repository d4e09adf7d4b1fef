//! The other brokers: connections to their internal listeners, and what is asked of them.
//!
//! - `connection`: channels to one broker, where it is registered; separate ones for data, control, members' streams and
//!   copies, so that data cannot hold up heartbeats, nor a member that does not read the others. Another session or address
//!   is another place: what is under way to the one before is given up, and nothing that failed there delays what comes;
//! - `appends`: one stream of batches to it; `watches`: one stream by which it tells of partitions that somebody waits at;
//! - [`wire`]: the forms in which all that travels.
//!
//! What a broker is to do for others is bounded: bytes of batches in flight by a share of the memory limit (beyond it appends
//! are refused with QUOTA_EXCEEDED, and not kept in a queue), reads by the memory their caller holds for them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

pub(crate) use self::appends::Outgoing;
pub use self::connection::{Peer, Purpose};
pub(crate) use self::watches::Watch;
use crate::brokers::Brokers;
use crate::memory::Shares;

mod appends;
mod connection;
mod watches;
pub mod wire;

/// The ways to all other brokers.
pub struct Peers {
    brokers: Arc<Brokers>,
    /// Bytes of batches that may be on their way to one of them.
    max_in_flight: usize,
    known: Mutex<HashMap<i32, Arc<Peer>>>,
}

impl Peers {
    /// To brokers as they are registered, for a broker of this `--memory-limit`.
    pub fn new(brokers: Arc<Brokers>, memory_limit: usize) -> Arc<Self> {
        // Others get what one that does not answer leaves.
        let max_in_flight = Shares::of_limit(memory_limit).requests / 2;
        Arc::new(Self { brokers, max_in_flight, known: Mutex::default() })
    }

    /// The way to one of them. There is one for each number that was ever asked for.
    pub fn peer(&self, broker: i32) -> Arc<Peer> {
        let mut known = self.known.lock();
        known.entry(broker).or_insert_with(|| Peer::new(self.brokers.clone(), broker, self.max_in_flight)).clone()
    }

    /// Bytes of batches that may be on their way to or from others.
    pub(crate) fn max_in_flight(&self) -> usize {
        self.max_in_flight
    }

    /// This broker and the others.
    pub fn brokers(&self) -> &Arc<Brokers> {
        &self.brokers
    }
}
