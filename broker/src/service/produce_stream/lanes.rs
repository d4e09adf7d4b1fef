//! What a stream remembers of the partitions it writes to: whether their order holds, and their topics' numbers.

use std::collections::HashMap;
use std::sync::Arc;

use taffrail_proto::v1::Reason;

use crate::memory::{Account, Charge};
use crate::metrics::{Metrics, TopicMetrics};
use crate::partition::{AppendError, Order};
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
    partitions: HashMap<i32, Turn>,
    numbers: Option<Arc<TopicMetrics>>,
}

/// Whether a partition's turn goes on.
#[derive(Default)]
struct Turn {
    /// Ended by the partition, for all that it has not taken yet.
    order: Order,
    /// A batch never got as far as the partition. Those before it are in its line and not concerned.
    refused: bool,
}

impl Lanes {
    pub(super) fn new(account: &Arc<Account>) -> Self {
        Self { topics: HashMap::new(), account: Arc::clone(account), charge: None }
    }

    /// The order that the next batch for a partition has to keep; an error if a batch before it was refused, or if no memory
    /// is left to keep account of another partition.
    pub(super) fn order(&mut self, topic: &str, partition: i32) -> Result<Order, Refused> {
        let turn = self.turn(topic, partition)?;
        if turn.refused || turn.order.has_ended() {
            return Err(AppendError::PrecedingRefused.into());
        }
        Ok(turn.order.clone())
    }

    /// A batch for a partition was refused before it got there: later ones are too, until the client resumes.
    pub(super) fn refuse(&mut self, topic: &str, partition: i32) -> Result<(), Refused> {
        self.turn(topic, partition)?.refused = true;
        Ok(())
    }

    /// Lets later batches for a partition pass again.
    pub(super) fn resume(&mut self, topic: &str, partition: i32) {
        if let Some(turn) = self.topics.get_mut(topic).and_then(|lane| lane.partitions.get_mut(&partition)) {
            *turn = Turn::default();
        }
    }

    fn turn(&mut self, topic: &str, partition: i32) -> Result<&mut Turn, Refused> {
        let known = self.topics.get(topic).is_some_and(|lane| lane.partitions.contains_key(&partition));
        if !known {
            let entry = self.account.try_charge(ENTRY_BYTES).ok_or_else(too_many)?;
            match &mut self.charge {
                Some(charge) => charge.merge(entry),
                none => *none = Some(entry),
            }
        }
        // Without an allocation where the topic is known.
        if !self.topics.contains_key(topic) {
            self.topics.insert(topic.to_owned(), Lane::default());
        }
        let lane = self.topics.get_mut(topic).expect("it was there or has just been inserted");
        Ok(lane.partitions.entry(partition).or_default())
    }

    /// The numbers of a topic that exists.
    pub(super) fn numbers(&mut self, topic: &str, metrics: &Metrics) -> Arc<TopicMetrics> {
        let lane = self.topics.entry(topic.to_owned()).or_default();
        Arc::clone(lane.numbers.get_or_insert_with(|| Arc::new(metrics.topic(topic))))
    }
}

fn too_many() -> Refused {
    refusal(Reason::QuotaExceeded, "the stream names too many partitions: use several connections").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Budget;

    fn goes_on(lanes: &mut Lanes, topic: &str, partition: i32) -> bool {
        match lanes.order(topic, partition) {
            Ok(_) => true,
            Err(refused) => {
                assert_eq!(refused.0.reason(), Reason::PrecedingFailed);
                false
            }
        }
    }

    #[test]
    fn p9_order_ends_for_one_partition_until_it_is_resumed() {
        let mut lanes = Lanes::new(&Account::new(&Budget::new(1 << 20)));
        lanes.order("t", 0).unwrap().end();
        assert!(!goes_on(&mut lanes, "t", 0));
        assert!(goes_on(&mut lanes, "t", 1));
        assert!(goes_on(&mut lanes, "u", 0));
        lanes.resume("t", 0);
        assert!(goes_on(&mut lanes, "t", 0));
    }

    #[test]
    fn p9_what_never_reached_the_partition_does_not_concern_what_is_in_its_line() {
        let mut lanes = Lanes::new(&Account::new(&Budget::new(1 << 20)));
        let in_line = lanes.order("t", 0).unwrap();
        lanes.refuse("t", 0).unwrap();
        assert!(!in_line.has_ended());
        assert!(!goes_on(&mut lanes, "t", 0));
        lanes.resume("t", 0);
        assert!(goes_on(&mut lanes, "t", 0));
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
