//! Partitions whose metadata went back in time, as when etcd is restored from a backup: frozen (M5).
//!
//! By an older state nobody knows who has the acknowledged records. So nothing that is planned for such a partition is done but
//! one: its slice says that it is frozen and why, and from then on that alone keeps it so, whoever knows a later state. A person
//! deletes the slice and brings the later state back.
//!
//! The other decisions need not know of this: what they plan is taken back here.

use std::collections::BTreeMap;

use taffrail_crds::PartitionState;
use uuid::Uuid;

use super::plan::{Changed, Slices};
use super::replicas::with_epochs;
use super::slices::Unplaced;

/// Partition epochs, by topic and index.
pub type Epochs = BTreeMap<(Uuid, i32), i32>;

/// The highest of each partition.
pub fn highest(told: impl Iterator<Item = ((Uuid, i32), i32)>) -> Epochs {
    let mut all = Epochs::new();
    for (partition, epoch) in told {
        let highest = all.entry(partition).or_insert(epoch);
        *highest = epoch.max(*highest);
    }
    all
}

/// Takes out of `changed` what concerns partitions of which later states were `seen`, and freezes those that are there. Answers
/// topics whose partitions would have been made anew.
pub fn freeze(slices: &Slices<'_>, seen: &Epochs, changed: &mut Changed) -> Vec<(String, Unplaced)> {
    let lost = not_anew(slices, seen, changed);
    for (key, present) in slices {
        let frozen_at = |(place, state): (usize, &PartitionState)| {
            Some((place, frozen(state, seen.get(&(key.0, state.index)).copied())?))
        };
        let frozen: Vec<_> = present.partitions.iter().enumerate().filter_map(frozen_at).collect();
        if frozen.is_empty() {
            continue;
        }
        // Whether the topic is deleted is not known either.
        let next = changed.entry(*key).or_insert_with(|| (*present).clone());
        next.tombstone.clone_from(&present.tombstone);
        if next.tombstone.is_none() {
            for (place, state) in frozen {
                next.partitions[place] = state;
            }
        }
        if next.tombstone.is_some() || next == *present {
            changed.remove(key);
        }
    }
    lost
}

/// Whether a topic's slices are older than what was `seen` of them: then nothing that they say of the topic counts.
pub fn is_older(topic: Uuid, slices: &Slices<'_>, seen: &Epochs) -> bool {
    let mut partitions = slices.range((topic, 0)..=(topic, i32::MAX)).flat_map(|(_, slice)| &slice.partitions);
    partitions.any(|state| seen.get(&(topic, state.index)).is_some_and(|seen| *seen > state.partition_epoch))
}

/// Partitions that were there are not made once more (M9).
fn not_anew(slices: &Slices<'_>, seen: &Epochs, changed: &mut Changed) -> Vec<(String, Unplaced)> {
    let mut lost = Vec::new();
    changed.retain(|key, next| {
        let present = slices.get(key).copied();
        let there = present.map_or(0, |present| present.partitions.len());
        let was_there = |state: &PartitionState| seen.contains_key(&(key.0, state.index));
        let Some(cut) = next.partitions.iter().skip(there).position(was_there) else { return true };
        let first_index = next.partitions[there + cut].index;
        lost.push((next.topic_name.clone(), Unplaced::Lost { first_index }));
        next.partitions.truncate(there + cut);
        !next.partitions.is_empty() && present != Some(&*next)
    });
    lost
}

/// As it is to be; `None`: nobody has seen a later state.
fn frozen(state: &PartitionState, seen: Option<i32>) -> Option<PartitionState> {
    if state.is_frozen() {
        return Some(state.clone());
    }
    let seen = seen.filter(|seen| *seen > state.partition_epoch)?;
    let fault = format!(
        "the cluster's metadata went back in time (partition epoch {}, and brokers have seen {seen}): nothing is decided by it. \
         Delete the PartitionSlice, then \"taffrail cluster recover\" brings back what the brokers saw last",
        state.partition_epoch
    );
    let next = PartitionState { leader: None, fault: Some(fault), seen_epoch: Some(seen), ..state.clone() };
    with_epochs(state, next)
}

#[cfg(test)]
mod tests {
    use taffrail_crds::PartitionSliceSpec;
    use taffrail_crds::slice::Tombstone;

    use super::super::slices::tests::{spread, wanted};
    use super::*;

    fn slice() -> PartitionSliceSpec {
        spread(&wanted(3)).remove(0)
    }

    /// What is written of this slice if so much was seen and `planned` is planned for it.
    fn written(
        present: Option<&PartitionSliceSpec>,
        seen: &[(i32, i32)],
        planned: Option<PartitionSliceSpec>,
    ) -> (Option<PartitionSliceSpec>, Vec<(String, Unplaced)>) {
        let (topic, key) = (wanted(1).id, (wanted(1).id, 0));
        let seen = seen.iter().map(|(index, epoch)| ((topic, *index), *epoch)).collect();
        let mut changed: Changed = planned.into_iter().map(|planned| (key, planned)).collect();
        let slices = present.into_iter().map(|present| (key, present)).collect();
        let lost = freeze(&slices, &seen, &mut changed);
        (changed.remove(&key), lost)
    }

    fn with(change: impl FnOnce(&mut PartitionSliceSpec)) -> PartitionSliceSpec {
        let mut slice = slice();
        change(&mut slice);
        slice
    }

    fn lead(slice: &mut PartitionSliceSpec, place: usize, leader: Option<i32>) {
        let state = &mut slice.partitions[place];
        (state.leader, state.leader_epoch, state.partition_epoch) =
            (leader, state.leader_epoch + 1, state.partition_epoch + 1);
    }

    #[test]
    fn m5_a_partition_that_went_back_is_frozen_whatever_is_planned_for_it() {
        let (present, planned) = (slice(), with(|slice| lead(slice, 1, Some(2))));
        for planned in [None, Some(planned)] {
            let (written, lost) = written(Some(&present), &[(1, 4)], planned);
            let written = written.unwrap();
            let state = &written.partitions[1];
            assert_eq!((state.leader, state.seen_epoch, state.partition_epoch), (None, Some(4), 1));
            assert_eq!((state.leader_epoch, &state.isr), (1, &present.partitions[1].isr));
            assert!(state.fault.as_ref().unwrap().contains("(partition epoch 0, and brokers have seen 4)"));
            assert_eq!(written.partitions[0], present.partitions[0]);
            assert_eq!(written.partitions[2], present.partitions[2]);
            assert_eq!(lost, []);
        }
    }

    #[test]
    fn m5_what_is_frozen_stays_as_it_is_though_nobody_knows_a_later_state_any_more() {
        let frozen = written(Some(&slice()), &[(1, 1)], None).0.unwrap();
        let elected = |slice: &PartitionSliceSpec| {
            let mut next = slice.clone();
            lead(&mut next, 1, Some(1));
            next.partitions[1].seen_epoch = None;
            next
        };
        for seen in [&[][..], &[(1, 1)], &[(1, 9)]] {
            assert_eq!(written(Some(&frozen), seen, None).0, None);
            assert_eq!(written(Some(&frozen), seen, Some(elected(&frozen))).0, None);
        }
        // Others in the same slice go on.
        let mut planned = elected(&frozen);
        lead(&mut planned, 0, Some(2));
        let written = written(Some(&frozen), &[], Some(planned.clone())).0.unwrap();
        assert_eq!((&written.partitions[0], &written.partitions[1]), (&planned.partitions[0], &frozen.partitions[1]));
    }

    #[test]
    fn what_is_not_older_than_what_was_seen_is_left_alone() {
        let planned = with(|slice| lead(slice, 1, Some(2)));
        assert_eq!(written(Some(&slice()), &[(1, 0)], Some(planned.clone())).0, Some(planned));
        assert_eq!(written(Some(&slice()), &[(1, 0)], None).0, None);
    }

    #[test]
    fn m9_partitions_that_were_there_are_not_made_anew_where_the_metadata_has_forgotten_them() {
        let short = with(|slice| drop(slice.partitions.pop()));
        let lost = |first_index| vec![("flights".to_owned(), Unplaced::Lost { first_index })];
        assert_eq!(written(Some(&short), &[(2, 0)], Some(slice())), (None, lost(2)));
        assert_eq!(written(None, &[(0, 3)], Some(slice())), (None, lost(0)));
        let mut one = slice();
        one.partitions.truncate(1);
        let (grown, told) = written(Some(&one), &[(2, 0)], Some(slice()));
        assert_eq!((grown, told), (Some(short), lost(2)), "one that is new is made");
        assert_eq!(written(Some(&one), &[], Some(slice())).0, Some(slice()));
    }

    #[test]
    fn m9_a_topic_is_neither_deleted_nor_brought_back_by_older_metadata() {
        let time = || "2026-01-01T00:00:00Z".to_owned();
        let tombstone = Some(Tombstone { deleted_at: time(), purge_at: time() });
        let deleted = with(|slice| slice.tombstone.clone_from(&tombstone));
        let frozen = written(Some(&slice()), &[(1, 4)], Some(deleted.clone())).0.unwrap();
        assert_eq!((frozen.tombstone, frozen.partitions[1].seen_epoch), (None, Some(4)));
        assert_eq!(written(Some(&deleted), &[(1, 4)], Some(slice())).0, None);
        assert_eq!(written(Some(&deleted), &[(1, 4)], None).0, None);
        let (topic, slices) = (wanted(1).id, Slices::from([((wanted(1).id, 0), &deleted)]));
        assert!(is_older(topic, &slices, &[((topic, 1), 1)].into()));
        assert!(!is_older(topic, &slices, &[((topic, 1), 0), ((topic, 7), 9)].into()));
    }
}
