//! The metadata store: compare-and-swap of whole objects, and all that has ever been in it, for those who see it late.

use std::collections::BTreeMap;
use std::rc::Rc;

use taffrail_broker::election::Seen;
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
    /// All objects that are watched, as they are now.
    List,
    /// The newest revision.
    ReadRevision,
    /// The Lease as it is now.
    ReadLease,
    /// A Lease in the place of that version, or the first, and who is to hold it.
    WriteLease(Option<String>, Option<String>),
}

/// How a call ended.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Broker(Option<(u64, BrokerSpec)>),
    Slice(Rc<PartitionSliceSpec>),
    Written(u64),
    /// Places in the histories: of slices, registrations and the Cluster.
    Listed(usize, usize, usize),
    Revision(u64),
    /// As it is, or was written.
    Lease(Option<Seen>),
    Conflict,
    /// Nothing was done (429), and nothing is to be asked for so many microseconds.
    TooMany(u64),
    /// No answer came.
    Unknown,
}

/// Versions are places in the histories.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) brokers: Vec<Rc<Brokers>>,
    pub(crate) slices: Vec<Rc<PartitionSliceSpec>>,
    pub(crate) clusters: Vec<ClusterSpec>,
    /// Of each slice the place where it was written: one that was restored has the version that it had.
    origins: Vec<usize>,
    /// Of each slice the place of the registrations of that time.
    brokers_at: Vec<usize>,
    /// Place of the oldest slice that is not of a time before the last restore.
    pub(crate) restored: usize,
    /// Somebody has deleted the slice.
    pub(crate) is_deleted: bool,
    /// The newest revision, of all that is in the API.
    pub(crate) revision: u64,
    pub(crate) lease: Option<Seen>,
    leases: u64,
}

impl Store {
    pub(crate) fn new(slice: PartitionSliceSpec, brokers: Brokers, cluster: ClusterSpec) -> Self {
        Self {
            brokers: vec![Rc::new(brokers)],
            slices: vec![Rc::new(slice)],
            clusters: vec![cluster],
            origins: vec![0],
            brokers_at: vec![0],
            restored: 0,
            is_deleted: false,
            revision: 1_000_000,
            lease: None,
            leases: 0,
        }
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
            Request::ReadSlice | Request::WriteSlice(..) if self.is_deleted => Answer::Conflict,
            Request::ReadSlice => Answer::Slice(self.slice().clone()),
            Request::List => Answer::Listed(self.slices.len() - 1, self.brokers.len() - 1, self.clusters.len() - 1),
            Request::ReadRevision => Answer::Revision(self.revision),
            Request::ReadLease => Answer::Lease(self.lease.clone()),
            Request::WriteLease(over, holder) => self.write_lease(over.as_ref(), holder.clone()),
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
                let is_newest = self.origins.get(*version as usize) == self.origins.last();
                if !is_newest || next.controller_epoch < self.slice().controller_epoch {
                    return Answer::Conflict;
                }
                for (before, after) in self.slice().partitions.iter().zip(&next.partitions) {
                    check_step(before, after);
                    check_move(before, after);
                }
                assert_eq!(self.slice().partitions.len(), next.partitions.len(), "M2: a partition disappears");
                self.push(next.clone(), self.slices.len());
                Answer::Written(self.slices.len() as u64 - 1)
            }
        }
    }

    fn push(&mut self, slice: Rc<PartitionSliceSpec>, origin: usize) {
        self.slices.push(slice);
        self.origins.push(origin);
        self.brokers_at.push(self.brokers.len() - 1);
    }

    fn write_lease(&mut self, over: Option<&String>, holder: Option<String>) -> Answer {
        if self.lease.as_ref().map(|lease| &lease.version) != over {
            return Answer::Conflict;
        }
        self.leases += 1;
        self.lease = Some(Seen { version: self.leases.to_string(), holder });
        Answer::Lease(self.lease.clone())
    }

    /// All is again as it was when the slice at this place was written: what is at the end of the histories is the same once more.
    pub(crate) fn restore(&mut self, place: usize) {
        self.brokers.push(self.brokers[self.brokers_at[place]].clone());
        self.push(self.slices[place].clone(), self.origins[place]);
        self.restored = self.slices.len() - 1;
    }

    /// Somebody makes the slice that was deleted, whatever was before.
    pub(crate) fn create(&mut self, slice: PartitionSliceSpec) {
        self.push(Rc::new(slice), self.slices.len());
        (self.restored, self.is_deleted) = (self.slices.len() - 1, false);
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
