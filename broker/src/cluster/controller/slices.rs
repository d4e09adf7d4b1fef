//! A topic's slices: made, grown, kept to what the topic asks for, marked as deleted, brought back.

use std::borrow::Cow;
use std::collections::BTreeMap;

use taffrail_crds::id::Id;
use taffrail_crds::slice::{PARTITIONS_PER_SLICE, Replica, Tombstone, UncleanRecovery};
use taffrail_crds::{PartitionSliceSpec, PartitionState};
use uuid::Uuid;

use super::place::{Load, Room};
use super::replicas::adapt;

/// What is wanted of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its identity.
    pub id: Uuid,
    /// Its name for clients.
    pub name: String,
    /// How many partitions.
    pub partitions: i32,
    /// Partitions that it is known to have had: their slices must be there.
    pub made: i32,
    /// How many replicas of each partition.
    pub replication_factor: i32,
    /// How many of them must have a record before a write with acks=all succeeds.
    pub min_in_sync_replicas: i32,
    /// This is what is accepted now, and partitions are changed to it. Otherwise they stay as they are.
    pub current: bool,
    /// Its data is to go.
    pub tombstone: Option<Tombstone>,
}

/// Why a topic does not get its slices.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unplaced {
    /// A slice was there and is not any more. An empty one in its place would hide what the brokers still have (M9).
    #[error(
        "the partitions from {first_index} on were there and their PartitionSlice is gone: the data is kept and not served; \
         \"taffrail cluster recover\" rebuilds it from what the brokers saw last"
    )]
    Lost {
        /// Of the slice.
        first_index: i32,
    },
    /// There are not enough brokers, or not all that there shall be yet: those that come later would stay empty.
    #[error(
        "fewer brokers than it has replicas can take a partition: wait for brokers to become ready, or lower its \
         replicationFactor"
    )]
    NoBroker,
}

/// The slices that are to be written: new ones, and others in the place of those of their first index.
///
/// `present` are the topic's slices by first index; `registered`: the cluster knows the topic, so that it had slices.
pub fn slices(
    cluster: &str,
    wanted: &Wanted,
    present: &BTreeMap<i32, &PartitionSliceSpec>,
    registered: bool,
    room: &mut Room<'_>,
) -> Result<Vec<PartitionSliceSpec>, Unplaced> {
    if wanted.tombstone.is_some() {
        let marked = |slice: &&PartitionSliceSpec| PartitionSliceSpec {
            tombstone: wanted.tombstone.clone(),
            ..(*slice).clone()
        };
        return Ok(present.values().filter(|slice| slice.tombstone.is_none()).map(marked).collect());
    }
    let (mut changed, mut of_topic) = (Vec::new(), Load::default());
    let placed = present.values().flat_map(|slice| &slice.partitions);
    placed.for_each(|partition| of_topic.count(partition));
    for first_index in (0..wanted.partitions).step_by(PARTITIONS_PER_SLICE as usize) {
        let mut slice = match present.get(&first_index) {
            Some(slice) => Cow::Borrowed(*slice),
            None if first_index < wanted.made || (registered && first_index == 0) => {
                return Err(Unplaced::Lost { first_index });
            }
            None => Cow::Owned(empty(cluster, wanted, first_index)),
        };
        if slice.tombstone.is_some() {
            slice.to_mut().tombstone = None;
        }
        for place in 0..slice.partitions.len() {
            if let Some(adapted) = adapt(&slice.partitions[place], wanted, &mut of_topic, room) {
                slice.to_mut().partitions[place] = adapted;
            }
        }
        let count = (wanted.partitions - first_index).min(PARTITIONS_PER_SLICE);
        for offset in slice.partitions.len() as i32..count {
            slice.to_mut().partitions.push(new_partition(first_index + offset, wanted, &mut of_topic, room)?);
        }
        if let Cow::Owned(slice) = slice {
            changed.push(slice);
        }
    }
    Ok(changed)
}

fn empty(cluster: &str, wanted: &Wanted, first_index: i32) -> PartitionSliceSpec {
    PartitionSliceSpec {
        cluster_name: cluster.to_owned(),
        topic_id: Id(wanted.id),
        topic_name: wanted.name.clone(),
        first_index,
        controller_epoch: 0,
        operation_id: 0,
        tombstone: None,
        partitions: Vec::new(),
    }
}

fn new_partition(
    index: i32,
    wanted: &Wanted,
    of_topic: &mut Load,
    room: &mut Room<'_>,
) -> Result<PartitionState, Unplaced> {
    let factor = wanted.replication_factor.max(1);
    let members = room.place(of_topic, factor as usize).ok_or(Unplaced::NoBroker)?;
    let replicas: Vec<_> = members.iter().map(|member| member.id).collect();
    let replica = |broker: i32, incarnation: i64| Replica { broker, incarnation };
    Ok(PartitionState {
        index,
        leader: replicas.first().copied(),
        // All have every record: there is none.
        isr: members.iter().map(|member| replica(member.id, member.incarnation)).collect(),
        replicas,
        adding: Vec::new(),
        removing: Vec::new(),
        leader_epoch: 0,
        partition_epoch: 0,
        elr: Vec::new(),
        last_known_elr: Vec::new(),
        fault: None,
        recovering: false,
        unclean_leader_epoch: None,
        seen_epoch: None,
        min_in_sync_replicas: wanted.min_in_sync_replicas.clamp(1, factor),
        replication_factor: factor,
        unclean_recovery: UncleanRecovery::default(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::members::Members;
    use super::super::members::tests::members;
    use super::*;

    pub(crate) fn wanted(partitions: i32) -> Wanted {
        Wanted {
            id: Uuid::from_u128(9),
            name: "flights".to_owned(),
            partitions,
            made: 0,
            replication_factor: 1,
            min_in_sync_replicas: 1,
            current: true,
            tombstone: None,
        }
    }

    /// The slices of a topic of three brokers in sessions 10 to 12.
    pub(crate) fn spread(wanted: &Wanted) -> Vec<PartitionSliceSpec> {
        made(wanted, &[], false).unwrap()
    }

    fn by_index(slices: &[PartitionSliceSpec]) -> BTreeMap<i32, &PartitionSliceSpec> {
        slices.iter().map(|slice| (slice.first_index, slice)).collect()
    }

    fn made(
        wanted: &Wanted,
        present: &[PartitionSliceSpec],
        registered: bool,
    ) -> Result<Vec<PartitionSliceSpec>, Unplaced> {
        let members = members(3);
        let mut room = Room::new(&members, members.values().collect(), Load::default());
        slices("main", wanted, &by_index(present), registered, &mut room)
    }

    #[test]
    fn a_topic_gets_slices_of_64_partitions_each_led_by_a_broker_in_its_session() {
        let slices = made(&wanted(130), &[], false).unwrap();
        let sizes: Vec<_> = slices.iter().map(|slice| (slice.first_index, slice.partitions.len())).collect();
        assert_eq!(sizes, [(0, 64), (64, 64), (128, 2)]);
        for partition in slices.iter().flat_map(|slice| &slice.partitions) {
            let leader = partition.leader.unwrap();
            assert_eq!(partition.isr, [Replica { broker: leader, incarnation: 10 + i64::from(leader) }]);
        }
        assert_eq!(made(&wanted(130), &slices, true), Ok(vec![]), "nothing is left to do");
    }

    #[test]
    fn a_topic_grows_and_what_is_there_stays() {
        let before = made(&wanted(63), &[], false).unwrap();
        let grown = made(&Wanted { made: 63, ..wanted(70) }, &before, true).unwrap();
        assert_eq!(grown.iter().map(|slice| slice.partitions.len()).collect::<Vec<_>>(), [64, 6]);
        assert_eq!(grown[0].partitions[..63], before[0].partitions[..]);
    }

    #[test]
    fn m9_a_slice_that_was_there_is_never_made_anew() {
        assert_eq!(made(&wanted(3), &[], true), Err(Unplaced::Lost { first_index: 0 }));
        let all = made(&wanted(70), &[], false).unwrap();
        let known = Wanted { made: 70, ..wanted(70) };
        assert_eq!(made(&known, &all[..1], true), Err(Unplaced::Lost { first_index: 64 }));
        assert!(made(&wanted(3), &[], false).is_ok(), "a topic that never had any gets them");
    }

    #[test]
    fn a_deleted_topic_is_marked_once_and_can_come_back() {
        let before = made(&wanted(3), &[], false).unwrap();
        let tombstone =
            Tombstone { deleted_at: "2026-01-01T00:00:00Z".into(), purge_at: "2026-01-02T00:00:00Z".into() };
        let deleted = Wanted { tombstone: Some(tombstone.clone()), ..wanted(3) };
        let marked = made(&deleted, &before, true).unwrap();
        assert_eq!(marked[0].tombstone, Some(tombstone));
        assert_eq!(marked[0].partitions, before[0].partitions);
        assert_eq!(made(&deleted, &marked, true), Ok(vec![]));
        assert_eq!(made(&wanted(3), &marked, true), Ok(before));
    }

    #[test]
    fn without_a_broker_nothing_is_made() {
        let nobody = Members::new();
        let mut room = Room::new(&nobody, Vec::new(), Load::default());
        let slices = slices("main", &wanted(1), &BTreeMap::new(), false, &mut room);
        assert_eq!(slices, Err(Unplaced::NoBroker));
    }

    #[test]
    fn a_new_partition_has_all_its_replicas_in_sync_or_is_not_made() {
        let of = |replicas| Wanted { replication_factor: replicas, min_in_sync_replicas: 2, ..wanted(3) };
        for partition in &made(&of(3), &[], false).unwrap()[0].partitions {
            assert_eq!((partition.isr.len(), partition.min_in_sync_replicas, partition.replication_factor), (3, 2, 3));
            assert_eq!(partition.leader, partition.replicas.first().copied());
        }
        assert_eq!(made(&of(4), &[], false), Err(Unplaced::NoBroker));
    }

    #[test]
    fn what_is_not_accepted_changes_nothing() {
        let before = made(&wanted(3), &[], false).unwrap();
        let more = Wanted { replication_factor: 3, min_in_sync_replicas: 2, ..wanted(3) };
        assert_eq!(made(&Wanted { current: false, ..more.clone() }, &before, true), Ok(vec![]));
        let grown = made(&more, &before, true).unwrap();
        assert!(grown[0].partitions.iter().all(|partition| partition.replicas.len() == 3));
        assert_eq!(made(&more, &grown, true), Ok(vec![]), "nothing is left to do");
    }
}
