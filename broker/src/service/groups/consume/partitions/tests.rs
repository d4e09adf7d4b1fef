use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use uuid::Uuid;

use super::*;
use crate::context::Context;
use crate::partition::{Isolation, Partition};
use crate::storage::memory::Disk;
use crate::storage::{PartitionId, Storage as _};
use crate::topics::{Assignment, Settings, Topic};

const TOPIC: Uuid = Uuid::from_u128(3);

fn id(partition: i32) -> TopicPartition {
    TopicPartition { topic: TOPIC, partition }
}

fn ids(partitions: &[i32]) -> BTreeSet<TopicPartition> {
    partitions.iter().copied().map(id).collect()
}

fn stands(assigned: &[i32], revoking: &[i32]) -> Membership {
    Membership {
        epoch: 1,
        assigned: ids(assigned),
        revoking: ids(revoking),
        heartbeat_interval: Duration::from_secs(3),
        session_timeout: Duration::from_secs(45),
    }
}

async fn reader() -> Reader {
    let storage = Disk::new().open();
    let context = Context::system(&*storage.meta()).unwrap();
    let settings = Arc::new(ArcSwap::from_pointee(Settings::plain()));
    let log = storage.create(PartitionId { topic: TOPIC, index: 0 }).unwrap();
    let partition = Partition::lead(log, context, settings.clone(), crate::partition::Term::alone(None)).await.unwrap();
    let topic = Topic::new("t".into(), TOPIC, settings, vec![(partition, Assignment::alone(0, 0))]);
    Reader::of(&topic, 0, Isolation::default()).unwrap()
}

/// Assigned and read, with the tokens.
async fn reading(partitions: &[i32]) -> (Partitions, Vec<u64>) {
    let mut all = Partitions::default();
    let started = all.follow(&stands(partitions, &[])).start;
    let reader = reader().await;
    let tokens: Vec<_> = started.into_iter().map(|(_, token)| token).collect();
    assert!(tokens.iter().all(|token| all.begin(*token, reader.clone())));
    (all, tokens)
}

#[tokio::test]
async fn c6_a_revoked_partition_is_held_until_the_client_has_let_go() {
    let (mut all, tokens) = reading(&[0, 1]).await;
    let changes = all.follow(&stands(&[0], &[1]));
    assert_eq!(changes, Changes { revoke: vec![id(1)], ..Changes::default() });
    assert!(all.reading(tokens[1]).is_none(), "nothing more is delivered");
    assert_eq!(all.owned(), ids(&[0, 1]));
    assert_eq!(all.follow(&stands(&[0], &[1])), Changes::default(), "it is said once");
    assert!(all.released(&ids(&[0, 1])), "what is not revoked is not let go of");
    assert_eq!(all.owned(), ids(&[0]));
    assert!(!all.released(&ids(&[1])));
}

#[tokio::test]
async fn what_the_coordinator_waits_for_and_nobody_holds_is_told_again() {
    let (mut all, _) = reading(&[0, 1]).await;
    all.follow(&stands(&[0], &[1]));
    all.released(&ids(&[1]));
    assert!(all.follow(&stands(&[0], &[1])).tell_owned, "the word of it crossed with a new epoch");
    assert!(!all.follow(&stands(&[0], &[])).tell_owned);
}

#[tokio::test]
async fn what_is_gone_without_being_waited_for_is_lost() {
    let (mut all, _) = reading(&[0, 1, 2]).await;
    all.follow(&stands(&[0, 1], &[2]));
    assert_eq!(all.follow(&stands(&[0], &[])), Changes { lost: vec![id(1), id(2)], ..Changes::default() });
    assert_eq!(all.lose_all(), [id(0)]);
    assert!(all.owned().is_empty());
}

#[tokio::test]
async fn a_partition_that_has_not_begun_is_given_up_without_a_word() {
    let mut all = Partitions::default();
    let started = all.follow(&stands(&[0], &[])).start;
    assert_eq!(all.follow(&stands(&[], &[0])), Changes { tell_owned: true, ..Changes::default() });
    assert!(!all.begin(started[0].1, reader().await));
    let again = all.follow(&stands(&[0], &[])).start;
    assert_ne!(again, started, "its token is a new one");
}

#[tokio::test]
async fn one_read_of_a_partition_is_under_way_at_a_time() {
    let (mut all, tokens) = reading(&[0]).await;
    assert_eq!(all.next_ready().map(|(token, _)| token), Some(tokens[0]));
    all.wake(tokens[0]);
    all.pause(&ids(&[0]), false);
    assert!(all.next_ready().is_none());
    all.reading(tokens[0]).unwrap().busy = false;
    all.wake(tokens[0]);
    all.wake(tokens[0]);
    assert!(all.next_ready().is_some() && all.next_ready().is_none());
}

#[tokio::test]
async fn a_paused_partition_is_not_read_until_it_is_resumed() {
    let (mut all, _) = reading(&[0]).await;
    all.pause(&ids(&[0, 7]), true);
    assert!(all.next_ready().is_none());
    all.pause(&ids(&[0]), false);
    assert!(all.next_ready().is_some());
}

#[tokio::test]
async fn what_was_read_before_a_seek_finds_nothing() {
    let (mut all, tokens) = reading(&[0]).await;
    all.next_ready();
    all.seek(id(0), 9);
    all.seek(id(5), 9);
    assert!(all.reading(tokens[0]).is_none());
    assert_eq!(all.next_ready().map(|(_, reader)| reader.offset), Some(9));
}
