use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::coordinator::StateMachine;
use crate::coordinator::group::{AssignorName, GroupShard, Subscription};

fn partition(number: i32) -> TopicPartition {
    TopicPartition { topic: Uuid::from_u128(u128::from(number as u32 % 3) + 2), partition: number }
}

fn of_group(change: Change) -> Record {
    Record::Group { group: "gruppe ä\0".into(), change }
}

/// One of each, with everything and with nothing in it.
fn all() -> Vec<Record> {
    let (member, instance): (Arc<str>, Arc<str>) = ("m".into(), "i".into());
    let full = Profile {
        instance: Some(instance),
        client_id: "client".to_owned(),
        client_host: IpAddr::V6(Ipv6Addr::LOCALHOST),
        rack: Some("zone".to_owned()),
        session_timeout: Duration::from_secs(45),
        rebalance_timeout: Duration::from_mins(5),
        subscription: Arc::new(Subscription {
            topics: ["a".to_owned(), "b".to_owned()].into(),
            pattern: Some("c.*".to_owned()),
        }),
        assignor: Some(AssignorName::Range),
    };
    let bare = Profile {
        instance: None,
        client_id: String::new(),
        rack: None,
        subscription: Arc::default(),
        assignor: None,
        ..full
    };
    let partitions: BTreeSet<_> = (0..7).map(partition).collect();
    let current = Current {
        epoch: 9,
        joined: 3,
        assigned: (0..5).map(|number| (partition(number), number + 3)).collect(),
        revoking: (5..7).map(|number| (partition(number), number)).collect(),
        away: true,
    };
    let offset = CommittedOffset { offset: 5, leader_epoch: Some(0), metadata: "x".repeat(4096), committed_at: -1 };
    let nothing = CommittedOffset { offset: 0, leader_epoch: None, metadata: String::new(), committed_at: 0 };
    let changes = vec![
        Change::Standing(Standing { epoch: 4, last_epoch: 9, empty_since: Some(0) }),
        Change::Standing(Standing::default()),
        Change::Removed,
        Change::Topics(Arc::new([(Uuid::from_u128(2), 7), (Uuid::from_u128(3), 0)].into())),
        Change::Topics(Arc::default()),
        Change::Profile { member: member.clone(), profile: Box::new(full) },
        Change::Profile { member: member.clone(), profile: Box::new(bare) },
        Change::Target { member: member.clone(), partitions: Arc::new(partitions) },
        Change::Target { member: member.clone(), partitions: Arc::default() },
        Change::Current { member: member.clone(), current },
        Change::Current { member: member.clone(), current: Current::default() },
        Change::MemberRemoved { member },
        Change::Offset { partition: partition(4), offset },
        Change::Offset { partition: partition(0), offset: nothing },
    ];
    let topic = Uuid::from_u128(2);
    let of_topics = [
        Record::TopicGone { topic, since: Some(0) },
        Record::TopicGone { topic, since: None },
        Record::TopicForgotten { topic },
    ];
    changes.into_iter().map(of_group).chain(of_topics).collect()
}

#[test]
fn records_are_decoded_as_they_were_encoded() {
    for record in all() {
        let (key, value) = encode(&record);
        assert_eq!(decode(&key, &value), Some(record));
    }
}

#[test]
fn bytes_of_version_1_stay_readable() {
    // Written by the first version. Never change them: logs are full of such records.
    let key = b"\x01\x06\x0a\x01g\x1a\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\x20\x03";
    let value = b"\x01\x08\x2a\x10\x01\x1a\x01m\x20\x07";
    let partition = TopicPartition { topic: Uuid::from_u128(2), partition: 3 };
    let offset = CommittedOffset { offset: 42, leader_epoch: Some(1), metadata: "m".to_owned(), committed_at: 7 };
    let record = Record::Group { group: "g".into(), change: Change::Offset { partition, offset } };
    assert_eq!(decode(key, value).as_ref(), Some(&record));
    assert_eq!(encode(&record), (key.to_vec().into(), value.to_vec().into()));
}

#[test]
fn fields_that_are_added_later_are_skipped() {
    for record in all() {
        let (key, value) = encode(&record);
        if !value.is_empty() {
            let newer = [&value[..], &[0xf8, 0x07, 0x01]].concat();
            assert_eq!(decode(&key, &newer), Some(record));
        }
    }
}

#[test]
fn other_versions_kinds_and_impossible_values_are_not_read() {
    let (key, value) = encode(&all()[0]);
    let changed = |bytes: &[u8], at: usize, to: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = to;
        bytes
    };
    for kind in [0, 9, 255] {
        assert_eq!(decode(&changed(&key, 1, kind), &value), None, "kind {kind}");
    }
    for version in [0, 2, 255] {
        assert_eq!(decode(&changed(&key, 0, version), &value), None);
        assert_eq!(decode(&key, &changed(&value, 0, version)), None);
    }
    let negative = CommittedOffset { offset: -1, leader_epoch: None, metadata: String::new(), committed_at: 0 };
    let topic = Uuid::from_u128(2);
    for change in [
        Change::Standing(Standing { epoch: -1, ..Standing::default() }),
        Change::Standing(Standing { epoch: 2, last_epoch: 1, empty_since: None }),
        Change::Offset { partition: partition(1), offset: negative },
        Change::Topics(Arc::new([(topic, -1)].into())),
        Change::Target { member: "".into(), partitions: Arc::default() },
        Change::Target { member: "m".into(), partitions: Arc::new([TopicPartition { topic, partition: -1 }].into()) },
        Change::Current { member: "m".into(), current: Current { epoch: -2, ..Current::default() } },
    ] {
        let (key, value) = encode(&of_group(change.clone()));
        assert_eq!(decode(&key, &value), None, "{change:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    /// Whatever is read is a record that could have been written, and a shard survives it.
    #[test]
    fn damaged_records_are_refused_or_harmless(
        damage in prop::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>(), any::<u8>(), 0..4_u8), 1..8),
    ) {
        let mut records: Vec<(Vec<u8>, Vec<u8>)> =
            all().iter().map(encode).map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        for (which, at, in_key, byte, how) in damage {
            let which = which.index(records.len());
            let bytes = if in_key { &mut records[which].0 } else { &mut records[which].1 };
            if bytes.is_empty() {
                continue;
            }
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes[at] ^= 1 << (byte % 8),
                2 => bytes.truncate(at),
                _ => bytes.insert(at, byte),
            }
        }
        let mut shard = GroupShard::new();
        for (key, value) in &records {
            if let Some(record) = decode(key, value) {
                let (key, value) = encode(&record);
                prop_assert_eq!(decode(&key, &value), Some(record.clone()));
                shard.replay(&record);
            }
        }
        shard.checkpoint().for_each(drop);
    }

    #[test]
    fn noise_is_refused_or_harmless(key in prop::collection::vec(any::<u8>(), 0..40), value in prop::collection::vec(any::<u8>(), 0..80), kind in 1..9_u8) {
        let key = [&[1, kind], &key[..]].concat();
        let value = [&[1], &value[..]].concat();
        if let Some(record) = decode(&key, &value) {
            GroupShard::new().replay(&record);
        }
    }
}
