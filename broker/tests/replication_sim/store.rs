//! The metadata store: compare-and-swap of whole objects, and all that has ever been in it, for those who see it late.

use std::collections::BTreeMap;
use std::rc::Rc;

use taffrail_crds::slice::PartitionState;
use taffrail_crds::{BrokerSpec, PartitionSliceSpec};

use super::moving::{ClusterSpec, check_move};

/// Registrations, each with its version.
pub(crate) type Brokers = BTreeMap<i32, (u64, BrokerSpec)>;

/// A call.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// A registration as it is now.
    ReadBroker(i32),
    /// The slice as it is now.
    ReadSlice,
    /// A registration in the place of that version; 0: of none.
    WriteBroker(u64, Box<BrokerSpec>),
    /// A slice in the place of that version.
    WriteSlice(u64, Rc<PartitionSliceSpec>),
}

/// How a call ended.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Broker(Option<(u64, BrokerSpec)>),
    Slice(Rc<PartitionSliceSpec>),
    Written(u64),
    Conflict,
    /// No answer came.
    Unknown,
}

/// Versions are places in the histories.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) brokers: Vec<Rc<Brokers>>,
    pub(crate) slices: Vec<Rc<PartitionSliceSpec>>,
    pub(crate) clusters: Vec<ClusterSpec>,
}

impl Store {
    pub(crate) fn new(slice: PartitionSliceSpec, brokers: Brokers, cluster: ClusterSpec) -> Self {
        Self { brokers: vec![Rc::new(brokers)], slices: vec![Rc::new(slice)], clusters: vec![cluster] }
    }

    pub(crate) fn cluster(&self) -> ClusterSpec {
        *self.clusters.last().expect("never empty")
    }

    pub(crate) fn slice(&self) -> &Rc<PartitionSliceSpec> {
        self.slices.last().expect("never empty")
    }

    pub(crate) fn partition(&self, index: usize) -> &PartitionState {
        &self.slice().partitions[index]
    }

    pub(crate) fn registered(&self) -> &Rc<Brokers> {
        self.brokers.last().expect("never empty")
    }

    pub(crate) fn serve(&mut self, request: &Request) -> Answer {
        match request {
            Request::ReadBroker(id) => Answer::Broker(self.registered().get(id).cloned()),
            Request::ReadSlice => Answer::Slice(self.slice().clone()),
            Request::WriteBroker(version, spec) => {
                let current = self.registered().get(&spec.id).map_or(0, |(version, _)| *version);
                if current != *version {
                    return Answer::Conflict;
                }
                let mut next = Brokers::clone(self.registered());
                let version = self.brokers.len() as u64;
                next.insert(spec.id, (version, (**spec).clone()));
                self.brokers.push(Rc::new(next));
                Answer::Written(version)
            }
            Request::WriteSlice(version, next) => {
                // A controller that has been replaced is refused, as by the rules of the object.
                if *version + 1 != self.slices.len() as u64 || next.controller_epoch < self.slice().controller_epoch {
                    return Answer::Conflict;
                }
                for (before, after) in self.slice().partitions.iter().zip(&next.partitions) {
                    check_step(before, after);
                    check_move(before, after);
                }
                assert_eq!(self.slice().partitions.len(), next.partitions.len(), "M2: a partition disappears");
                self.slices.push(next.clone());
                Answer::Written(version + 1)
            }
        }
    }
}

/// M2 and the rest of what the object's own rules say; a controller's plan must never ask for what they refuse.
fn check_step(before: &PartitionState, after: &PartitionState) {
    let say = |rule: &str| format!("{rule}: from {before:?} to {after:?}");
    let changed = before != after;
    assert!(!changed || after.partition_epoch > before.partition_epoch, "{}", say("M2: partition epoch"));
    assert!(after.leader_epoch >= before.leader_epoch, "{}", say("M2: leader epoch falls"));
    let same_leader = after.leader == before.leader;
    assert!(same_leader || after.leader_epoch > before.leader_epoch, "{}", say("M2: leader without a leader epoch"));
    let is_in = |leader: i32| after.isr.iter().any(|replica| replica.broker == leader);
    assert!(after.leader.is_none_or(is_in), "{}", say("M2: the leader is not in sync"));
    let among = |replica: &taffrail_crds::slice::Replica| after.replicas.contains(&replica.broker);
    assert!(after.isr.iter().chain(&after.elr).all(among), "{}", say("M2: in sync and no replica"));
    let mut brokers: Vec<_> = after.isr.iter().chain(&after.elr).map(|replica| replica.broker).collect();
    brokers.sort_unstable();
    assert!(brokers.windows(2).all(|two| two[0] != two[1]), "{}", say("L2: twice in ISR and ELR"));
    let enough = after.isr.len() >= after.min_in_sync_replicas as usize;
    assert!(!enough || after.elr.is_empty(), "{}", say("L2: an ELR beside a full min ISR"));
}
