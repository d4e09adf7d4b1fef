//! What the controller knows of brokers when it decides.

use std::collections::BTreeMap;

use taffrail_crds::BrokerSpec;
use taffrail_crds::slice::Replica;
use uuid::Uuid;

use crate::replication::proposals::ByPartition;
use crate::storage::Extent;
use crate::storage::leader_epochs::LeaderEpochs;

/// Where a log ends, of a partition that nobody leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// The partition's leader epoch when it was read: as long as that is the present one, nobody writes to the log.
    pub leader_epoch: i32,
    /// Leader epoch of its last record; −1: it has none.
    pub epoch: i32,
    /// The offset after its last record.
    pub end: i64,
}

impl LogEnd {
    /// Of a log that has nothing.
    pub fn none(leader_epoch: i32) -> Self {
        Self { leader_epoch, epoch: -1, end: 0 }
    }

    /// Of this log. An epoch of which it holds no record counts for nothing: whoever has records of an older one may have what
    /// this log lacks.
    pub fn of(leader_epoch: i32, extent: Extent, epochs: &LeaderEpochs) -> Self {
        let last = if extent.end > extent.start { epochs.at(extent.end - 1) } else { None };
        Self { leader_epoch, epoch: last.unwrap_or(-1), end: extent.end }
    }
}

/// A registered broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Number of the broker.
    pub id: i32,
    /// Its present session.
    pub incarnation: i64,
    /// The earliest session since which it has lost nothing; none before the present one if not set.
    pub continues: Option<i64>,
    /// It is silent, or has not been heard since it registered: neither leads nor is in sync.
    pub fenced: bool,
    /// It has been heard in this session for so long that clients find it too.
    pub settled: bool,
    /// It is about to stop: nothing new is given to it (I9).
    pub stopping: bool,
    /// Zone of its node.
    pub zone: Option<String>,
    /// Partitions that it says it cannot serve, and why.
    pub faults: BTreeMap<(Uuid, i32), String>,
    /// Partitions of which it has found stored records to be damaged, and under which leader epochs it leads or follows.
    pub damaged: BTreeMap<(Uuid, i32), i32>,
    /// Partitions that it was elected for without proof, and whose log it has found and serves: under which leader epochs.
    pub recovered: BTreeMap<(Uuid, i32), i32>,
    /// What it asks for where it leads.
    pub proposals: ByPartition,
    /// Where its logs end of partitions that nobody leads, if it is asked.
    pub ends: BTreeMap<(Uuid, i32), LogEnd>,
}

impl Member {
    /// Of a registration, before anything was heard of the broker itself.
    pub fn registered(spec: &BrokerSpec) -> Self {
        Self {
            id: spec.id,
            incarnation: spec.incarnation,
            continues: spec.continues,
            fenced: spec.fenced,
            settled: false,
            stopping: false,
            zone: spec.zone.clone(),
            faults: BTreeMap::new(),
            damaged: BTreeMap::new(),
            recovered: BTreeMap::new(),
            proposals: ByPartition::new(),
            ends: BTreeMap::new(),
        }
    }

    /// It has all that the replica had (M6): the same session, or a later one that has lost nothing since.
    pub fn vouches_for(&self, replica: Replica) -> bool {
        let since = self.continues.unwrap_or(self.incarnation);
        (since..=self.incarnation).contains(&replica.incarnation)
    }
}

/// All registered brokers, by number.
pub type Members = BTreeMap<i32, Member>;

/// Whether leadership of a partition, by topic and index, can be handed to this replica: its broker is in that session, alive,
/// not about to stop, and able to serve all of it.
pub fn can_lead(members: &Members, partition: (Uuid, i32), replica: Replica) -> bool {
    let member = members.get(&replica.broker).filter(|member| member.incarnation == replica.incarnation);
    let is_whole =
        |member: &&Member| !member.faults.contains_key(&partition) && !member.damaged.contains_key(&partition);
    member.filter(is_whole).is_some_and(can_take)
}

/// New partitions may be given to it.
pub fn can_take(member: &Member) -> bool {
    !member.fenced && !member.stopping
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Brokers 0, 1, … in session 10 + number, alive, in zones a, b, c.
    pub(in crate::cluster) fn members(count: i32) -> Members {
        let member = |id| Member {
            id,
            incarnation: 10 + i64::from(id),
            continues: None,
            fenced: false,
            settled: true,
            stopping: false,
            zone: Some(["a", "b", "c"][id as usize % 3].to_owned()),
            faults: BTreeMap::new(),
            damaged: BTreeMap::new(),
            recovered: BTreeMap::new(),
            proposals: ByPartition::new(),
            ends: BTreeMap::new(),
        };
        (0..count).map(|id| (id, member(id))).collect()
    }

    #[test]
    fn l8_a_log_ends_with_its_last_record_whatever_epochs_were_led_since() {
        let mut epochs = LeaderEpochs::new();
        assert_eq!(LogEnd::of(5, Extent { start: 0, end: 0 }, &epochs), LogEnd::none(5));
        epochs.appended(2, 0, 40);
        epochs.assign(4, 40);
        let end = LogEnd { leader_epoch: 5, epoch: 2, end: 40 };
        assert_eq!(LogEnd::of(5, Extent { start: 10, end: 40 }, &epochs), end);
        assert_eq!(
            LogEnd::of(5, Extent { start: 40, end: 40 }, &epochs),
            LogEnd { epoch: -1, ..end },
            "all is deleted"
        );
        epochs.appended(4, 40, 41);
        assert_eq!(LogEnd::of(5, Extent { start: 10, end: 41 }, &epochs), LogEnd { epoch: 4, end: 41, ..end });
    }

    #[test]
    fn m6_a_broker_vouches_for_the_sessions_that_it_continues() {
        let mut member = members(1).remove(&0).unwrap();
        let at = |incarnation| Replica { broker: 0, incarnation };
        assert!(member.vouches_for(at(10)) && !member.vouches_for(at(9)) && !member.vouches_for(at(11)));
        member.continues = Some(7);
        assert!(member.vouches_for(at(7)) && member.vouches_for(at(10)) && !member.vouches_for(at(6)));
    }
}
