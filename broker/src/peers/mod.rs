//! The other brokers: connections to their internal listeners.

use std::sync::Arc;

use taffrail_proto::v1::{LogError, Reason};

use crate::brokers::Brokers;
use crate::service::status::refusal;

/// All other brokers.
pub struct Peers {
    brokers: Arc<Brokers>,
}

impl Peers {
    /// As they are registered.
    pub fn new(brokers: Arc<Brokers>) -> Arc<Self> {
        Arc::new(Self { brokers })
    }

    /// Why a leader could not be asked.
    pub(crate) fn unreachable(&self, leader: i32, leader_epoch: i32) -> LogError {
        let me = self.brokers.me();
        let message = format_args!("broker {me} does not reach broker {leader}, leader under epoch {leader_epoch}");
        refusal(Reason::Unavailable, message)
    }
}
