//! What a stream remembers of the partitions it writes to: whether their order holds, and their topics' numbers.

use std::collections::HashMap;
use std::sync::Arc;

use taffrail_proto::v1::Reason;

use crate::memory::{Account, Charge};
use crate::metrics::{Metrics, TopicMetrics};
use crate::partition::Order;
use crate::service::status::{Refused, refusal};

/// About what an entry takes, so that naming many partitions is paid for.
const ENTRY_BYTES: usize = 256;

/// The partitions of one stream, by the names that the client uses, known or not.
pub(super) struct Lanes {
    topics: HashMap<String, Lane>,
    account: Arc<Account>,
    charge: Option<Charge>,
}

#[derive(Default)]
struct Lane {
    orders: HashMap<i32, Order>,
    numbers: Option<Arc<TopicMetrics>>,
}

impl Lanes {
    pub(super) fn new(account: &Arc<Account>) -> Self {
        Self { topics: HashMap::new(), account: Arc::clone(account), charge: None }
    }

    /// The order that the next batch for a partition has to keep. An error if no memory is left to keep it.
    pub(super) fn order(&mut self, topic: &str, partition: i32) -> Result<Order, Refused> {
        if let Some(order) = self.topics.get(topic).and_then(|lane| lane.orders.get(&partition)) {
            return Ok(order.clone());
        }
        let entry = self.account.try_charge(ENTRY_BYTES).ok_or_else(|| {
            Refused::of(refusal(Reason::QuotaExceeded, "the stream names too many partitions: use several connections"))
        })?;
        match &mut self.charge {
            Some(charge) => charge.merge(entry),
            none => *none = Some(entry),
        }
        let lane = self.topics.entry(topic.to_owned()).or_default();
        Ok(lane.orders.entry(partition).or_default().clone())
    }

    /// Lets later batches for a partition pass again.
    pub(super) fn resume(&mut self, topic: &str, partition: i32) {
        if let Some(order) = self.topics.get_mut(topic).and_then(|lane| lane.orders.get_mut(&partition)) {
            *order = Order::default();
        }
    }

    /// The numbers of a topic that exists.
    pub(super) fn numbers(&mut self, topic: &str, metrics: &Metrics) -> Arc<TopicMetrics> {
        let lane = self.topics.entry(topic.to_owned()).or_default();
        Arc::clone(lane.numbers.get_or_insert_with(|| Arc::new(metrics.topic(topic))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Budget;

    #[test]
    fn p9_order_ends_for_one_partition_until_it_is_resumed() {
        let mut lanes = Lanes::new(&Account::new(&Budget::new(1 << 20)));
        lanes.order("t", 0).unwrap().end();
        assert!(lanes.order("t", 0).unwrap().has_ended());
        assert!(!lanes.order("t", 1).unwrap().has_ended());
        assert!(!lanes.order("u", 0).unwrap().has_ended());
        lanes.resume("t", 0);
        assert!(!lanes.order("t", 0).unwrap().has_ended());
    }

    #[test]
    fn naming_endless_partitions_ends_in_a_refusal() {
        let budget = Budget::new(1 << 20);
        let mut lanes = Lanes::new(&Account::new(&budget));
        let refused = (0..).find_map(|partition| lanes.order("t", partition).err()).unwrap();
        assert_eq!(refused.0.reason(), Reason::QuotaExceeded);
        drop(lanes);
        assert_eq!(budget.free(), 1 << 20);
    }
}
