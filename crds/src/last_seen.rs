//! What brokers saw last of objects that are lost, put together: each broker knows a past, and the newest of each part is
//! what it was. Pure.

use crate::cluster_state::NextIds;
use crate::{ClusterStateSpec, PartitionSliceSpec, PartitionState};

/// Numbers that are left out when a ClusterState is put together: whoever took a block that no broker saw keeps it. No
/// block is larger.
pub const BLOCK: i64 = 1 << 20;

/// Two brokers saw the ClusterStates of two clusters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("they are of two clusters, {one} and {other}: a broker has the volume of another cluster")]
pub struct OtherCluster {
    /// A cluster's id.
    pub one: crate::id::Id,
    /// Another's.
    pub other: crate::id::Id,
}

/// One slice as two saw it: each partition with its highest `partitionEpoch`, all else from the later write. One that is frozen
/// counts for less than any other: its epoch rose when that was noted.
pub fn slice(one: PartitionSliceSpec, other: PartitionSliceSpec) -> PartitionSliceSpec {
    let age = |slice: &PartitionSliceSpec| (slice.controller_epoch, slice.operation_id);
    let (mut newer, older) = if age(&one) >= age(&other) { (one, other) } else { (other, one) };
    let rank = |partition: &PartitionState| (!partition.is_frozen(), partition.partition_epoch);
    for partition in older.partitions {
        match newer.partitions.iter_mut().find(|known| known.index == partition.index) {
            Some(known) if rank(known) < rank(&partition) => *known = partition,
            Some(_) => {}
            None => newer.partitions.push(partition),
        }
    }
    newer.partitions.sort_by_key(|partition| partition.index);
    newer.operation_id = newer.operation_id.max(older.operation_id);
    newer
}

/// The slice as it is brought back: leaders begin anew, under epochs under which nobody has led.
pub fn brought_back(mut slice: PartitionSliceSpec) -> PartitionSliceSpec {
    for partition in &mut slice.partitions {
        partition.leader_epoch = partition.leader_epoch.saturating_add(1);
    }
    slice
}

/// Whether the ClusterState that was found is older than what was seen of it before, as when etcd is restored from a backup (M11).
pub fn went_back(found: &ClusterStateSpec, seen: &ClusterStateSpec) -> bool {
    let numbers = |state: &ClusterStateSpec| {
        let NextIds { producer, incarnation, operation } = state.next_ids;
        [i64::from(state.controller_epoch), producer, incarnation, operation]
    };
    let falls = numbers(found).into_iter().zip(numbers(seen)).any(|(found, seen)| found < seen);
    found.cluster_id == seen.cluster_id && falls
}

/// The ClusterState as two saw it: nothing falls, and no topic disappears.
pub fn state(one: ClusterStateSpec, other: ClusterStateSpec) -> Result<ClusterStateSpec, OtherCluster> {
    if one.cluster_id != other.cluster_id {
        return Err(OtherCluster { one: one.cluster_id, other: other.cluster_id });
    }
    let age = |state: &ClusterStateSpec| (state.controller_epoch, state.next_ids.operation);
    let (mut newer, older) = if age(&one) >= age(&other) { (one, other) } else { (other, one) };
    newer.feature_level = newer.feature_level.max(older.feature_level);
    newer.next_ids = NextIds {
        producer: newer.next_ids.producer.max(older.next_ids.producer),
        incarnation: newer.next_ids.incarnation.max(older.next_ids.incarnation),
        operation: newer.next_ids.operation.max(older.next_ids.operation),
    };
    for topic in older.internal_topics {
        if newer.internal_topics.iter().all(|known| known.name != topic.name) {
            newer.internal_topics.push(topic);
        }
    }
    for (id, name) in older.topics {
        newer.topics.entry(id).or_insert(name);
    }
    Ok(newer)
}

/// The state with room for numbers that were given out after it was seen.
pub fn with_room(mut state: ClusterStateSpec) -> ClusterStateSpec {
    for next in [&mut state.next_ids.producer, &mut state.next_ids.incarnation, &mut state.next_ids.operation] {
        *next = next.saturating_add(BLOCK);
    }
    state
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A slice of partitions with these epochs.
    fn seen(controller_epoch: i32, operation_id: i64, partition_epochs: &[i32]) -> PartitionSliceSpec {
        let partitions: Vec<Value> = partition_epochs.iter().enumerate().map(|(index, epoch)| json!({
            "index": index, "replicas": [0], "leaderEpoch": epoch, "partitionEpoch": epoch, "minInSyncReplicas": 1,
            "replicationFactor": 1,
        })).collect();
        let slice = json!({
            "clusterName": "main", "topicId": "3f2a8c1e-0000-4000-8000-00000000abcd", "topicName": "t", "firstIndex": 0,
            "controllerEpoch": controller_epoch, "operationId": operation_id, "partitions": partitions,
        });
        serde_json::from_value(slice).unwrap()
    }

    fn remembered(epoch: i32, ids: [i64; 3], internal: &[&str], topics: &Value) -> ClusterStateSpec {
        let internal: Vec<Value> = internal
            .iter()
            .map(|name| json!({ "name": name, "topicId": "3f2a8c1e-0000-4000-8000-000000000001", "partitions": 50 }))
            .collect();
        let state = json!({
            "clusterId": "0b0a3c5e-93c2-4b39-8d7a-3a1a7a2f4c01", "controller": epoch, "controllerEpoch": epoch,
            "featureLevel": 1, "internalTopics": internal, "topics": topics,
            "nextIds": { "producer": ids[0], "incarnation": ids[1], "operation": ids[2] },
        });
        serde_json::from_value(state).unwrap()
    }

    #[test]
    fn each_partition_is_as_it_was_seen_with_its_highest_epoch() {
        for (one, other, together) in [
            (seen(3, 9, &[1, 2]), seen(3, 9, &[1, 2]), seen(3, 9, &[1, 2])),
            (seen(3, 9, &[1, 2]), seen(4, 12, &[5, 2]), seen(4, 12, &[5, 2])),
            // Partitions that were added since, and one that a restored copy took back.
            (seen(3, 9, &[1]), seen(3, 10, &[1, 0]), seen(3, 10, &[1, 0])),
            (seen(5, 2, &[2, 1]), seen(4, 12, &[1, 7]), seen(5, 12, &[2, 7])),
            (seen(5, 13, &[2]), seen(4, 12, &[1, 7]), seen(5, 13, &[2, 7])),
        ] {
            assert_eq!(slice(one.clone(), other.clone()), together);
            assert_eq!(slice(other, one), together, "whoever answers first");
        }
    }

    #[test]
    fn m5_what_was_frozen_is_never_taken_for_what_was_there() {
        let frozen = |mut slice: PartitionSliceSpec| {
            slice.partitions[0].seen_epoch = Some(9);
            slice
        };
        // The note that it is frozen has reached the epoch that was seen, and is a later write.
        let together = seen(7, 20, &[4, 2]);
        assert_eq!(slice(frozen(seen(7, 20, &[4, 2])), seen(5, 9, &[4, 1])), together);
        assert_eq!(slice(seen(5, 9, &[4, 1]), frozen(seen(7, 20, &[4, 2]))), together);
        // Even where it has passed it.
        assert_eq!(slice(frozen(seen(7, 20, &[5, 2])), seen(5, 9, &[4, 1])), together);
        let both = frozen(seen(7, 20, &[5, 2]));
        assert_eq!(slice(both.clone(), frozen(seen(6, 12, &[4, 2]))), both);
    }

    #[test]
    fn what_is_brought_back_is_led_under_new_epochs() {
        let back = brought_back(seen(3, 9, &[4, 0]));
        let epochs: Vec<_> = back.partitions.iter().map(|p| (p.leader_epoch, p.partition_epoch)).collect();
        assert_eq!(epochs, [(5, 4), (1, 0)]);
    }

    #[test]
    fn m11_a_cluster_state_went_back_if_any_of_its_numbers_fell() {
        let state = |epoch, ids| remembered(epoch, ids, &[], &json!({}));
        let seen = state(4, [1, 5, 7]);
        for (found, expected) in [
            (state(4, [1, 5, 7]), false),
            (state(5, [2, 5, 9]), false),
            (state(3, [1, 5, 7]), true),
            (state(5, [0, 9, 9]), true),
            (state(5, [9, 4, 9]), true),
            (state(5, [9, 9, 6]), true),
        ] {
            assert_eq!(went_back(&found, &seen), expected, "{found:?}");
        }
        let mut alien = state(3, [0, 0, 0]);
        alien.cluster_id = "11111111-2222-4333-8444-555555555555".parse().map(crate::id::Id).unwrap();
        assert!(!went_back(&alien, &seen), "another cluster's is none of its past");
    }

    #[test]
    fn a_tombstone_is_there_or_not_as_the_later_write_says() {
        let deleted = |mut slice: PartitionSliceSpec| {
            let tombstone = json!({ "deletedAt": "2026-01-01T00:00:00Z", "purgeAt": "2026-01-02T00:00:00Z" });
            slice.tombstone = Some(serde_json::from_value(tombstone).unwrap());
            slice
        };
        assert!(slice(deleted(seen(3, 10, &[1])), seen(3, 9, &[1])).tombstone.is_some());
        assert!(slice(deleted(seen(3, 10, &[1])), seen(3, 11, &[1])).tombstone.is_none());
    }

    #[test]
    fn nothing_that_a_cluster_remembers_falls_or_disappears() {
        let (a, b) = ("3f2a8c1e-0000-4000-8000-00000000000a", "3f2a8c1e-0000-4000-8000-00000000000b");
        let one = remembered(4, [1, 5, 7], &["__a"], &json!({ a: "orders" }));
        let other = remembered(6, [2, 3, 9], &["__b"], &json!({ b: "flights" }));
        let both = remembered(6, [2, 5, 9], &["__b", "__a"], &json!({ a: "orders", b: "flights" }));
        assert_eq!(state(one.clone(), other.clone()).unwrap(), both);
        assert_eq!(state(other.clone(), one).unwrap(), both);
        assert_eq!(
            with_room(both).next_ids,
            NextIds { producer: BLOCK + 2, incarnation: BLOCK + 5, operation: BLOCK + 9 }
        );
        let mut alien = other.clone();
        alien.cluster_id = "11111111-2222-4333-8444-555555555555".parse().map(crate::id::Id).unwrap();
        assert!(state(other, alien).is_err());
    }
}
