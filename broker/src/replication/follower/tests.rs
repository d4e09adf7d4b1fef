use std::cell::Cell;

use proptest::prelude::*;
use taffrail_proto::record::header::{set_base_offset, set_leader_epoch};
use taffrail_proto::record::{BatchBuilder, Compression};
use uuid::Uuid;

use super::*;
use crate::partition::Snapshot;
use crate::partition::read::divergence;
use crate::storage::leader_epochs::LeaderEpochs;
use crate::storage::memory::MemoryStorage;
use crate::storage::{Append, Durability, Log, PartitionId, Storage, Ticket};

/// A batch whose records tell offset and epoch.
fn batch(base: i64, records: usize, epoch: i32) -> Bytes {
    let mut builder = BatchBuilder::new();
    for offset in (base..).take(records) {
        builder.push(None, Some(format!("{epoch}/{offset}").as_bytes()), [], 1_000).unwrap();
    }
    let mut batch = builder.build(Compression::None, None).unwrap().to_vec();
    set_base_offset(&mut batch, base);
    set_leader_epoch(&mut batch, epoch);
    batch.into()
}

fn history(entries: &[(i32, i64)]) -> Arc<LeaderEpochs> {
    let mut epochs = LeaderEpochs::new();
    for &(epoch, start) in entries {
        epochs.assign(epoch, start);
    }
    Arc::new(epochs)
}

fn held(start: i64, end: i64, epochs: &[(i32, i64)]) -> Held {
    Held { start, end, epochs: history(epochs) }
}

/// Follows a leader of epoch 9, and has asked.
fn asking(held: &Held, high_watermark: i64) -> Follower {
    let mut follower = Follower::new(9, high_watermark, held.clone());
    let asked = follower.ask().unwrap();
    assert_eq!((asked.next, asked.written, asked.max_bytes), (held.end, held.end, DEMAND_BYTES));
    follower
}

fn answer(answers: i64, outcome: Outcome) -> Answer {
    Answer { leader_epoch: 9, answers: Some(answers), outcome, ..Answer::default() }
}

fn data(answers: i64, batches: Vec<Bytes>, high_watermark: i64) -> Answer {
    Answer { batches, high_watermark, ..answer(answers, Outcome::Matches) }
}

fn nothing() -> Held {
    panic!("nobody looks at the log")
}

#[test]
fn e3_answers_of_another_epoch_are_dropped_even_when_offsets_fit() {
    let mut follower = asking(&held(0, 5, &[(1, 0)]), 5);
    for leader_epoch in [8, 10] {
        let other = Answer { leader_epoch, ..data(5, vec![batch(5, 1, 8)], 6) };
        assert!(follower.answer(other).is_empty());
    }
    assert!(follower.answer(data(4, vec![batch(5, 1, 8)], 6)).is_empty(), "to what was not asked");
    assert_eq!(follower.answer(data(5, vec![batch(5, 1, 8)], 6)).len(), 1);
}

#[test]
fn t1_t2_it_truncates_to_the_smaller_end_of_the_leaders_epoch() {
    let history: &[(i32, i64)] = &[(1, 0), (3, 10), (5, 20)];
    let cases = [
        (Outcome::Diverges(Some(3), 15), "Truncate(15)"),
        (Outcome::Diverges(Some(3), 25), "Truncate(20)"),
        (Outcome::Diverges(Some(2), 17), "Truncate(10)"),
        (Outcome::Diverges(Some(5), 22), "Truncate(22)"),
        (Outcome::Diverges(Some(0), 8), "Restart(4)"),
        (Outcome::Diverges(None, 6), "Truncate(6)"),
        (Outcome::Diverges(None, 4), "Restart(4)"),
        (Outcome::Diverges(None, 2), "Restart(4)"),
        (Outcome::Diverges(Some(1), 3), "Restart(4)"),
    ];
    for (outcome, expected) in cases {
        let mut follower = asking(&held(4, 30, history), 0);
        let effects = follower.answer(answer(30, outcome.clone()));
        assert_eq!(format!("{effects:?}"), format!("[{expected}]"), "{outcome:?}");
        assert_eq!(follower.ask(), None, "until the log has done it");
        assert!(follower.written(Ok(()), || held(4, 12, &[(1, 0), (3, 10)])).is_empty());
        let asked = follower.ask().unwrap();
        assert_eq!((asked.next, asked.last_epoch, asked.written), (12, Some(3), 12));
    }
}

#[test]
fn t4_what_is_committed_is_not_truncated() {
    for (high_watermark, stops) in [(15, false), (16, true)] {
        let mut follower = asking(&held(0, 30, &[(1, 0), (3, 10), (5, 20)]), high_watermark);
        let effects = follower.answer(answer(30, Outcome::Diverges(Some(3), 15)));
        assert_eq!(matches!(effects[..], [Effect::Fault(_)]), stops);
        assert_eq!(follower.fault().is_some(), stops);
        if stops {
            follower.again();
            assert!(follower.ask().is_none(), "for good");
        } else {
            follower.written(Ok(()), || held(0, 15, &[(1, 0), (3, 10)]));
            assert_eq!(follower.high_watermark(), high_watermark.min(15));
        }
    }
}

/// All that the leader had when it took its epoch has been deleted there: its followers were in sync with it, and stay so.
#[test]
fn t4_what_the_leader_has_deleted_is_not_given_up_before_the_logs_start_follows() {
    let mut follower = asking(&held(0, 30, &[(1, 0), (3, 10), (5, 20)]), 21);
    let effects = follower.answer(answer(30, Outcome::Diverges(None, 21)));
    assert!(matches!(effects[..], [Effect::Truncate(21)]), "{effects:?}");
    assert!(follower.written(Ok(()), || held(0, 21, &[(1, 0), (3, 10), (5, 20)])).is_empty());
    assert_eq!(follower.ask().map(|asked| (asked.next, asked.written)), Some((21, 21)));
    let effects = follower.answer(Answer { log_start: 21, ..data(21, vec![batch(21, 9, 8)], 21) });
    assert!(matches!(effects[..], [Effect::Append(..), Effect::Trim(21)]), "{effects:?}");
}

#[test]
fn t4_a_leader_whose_log_cannot_be_reached_stops_the_replica() {
    let mut follower = asking(&held(80, 80, &[(5, 80)]), 0);
    let effects = follower.answer(answer(80, Outcome::Diverges(None, 50)));
    assert!(matches!(effects[..], [Effect::Fault(_)]), "{effects:?}");
}

#[test]
fn h4_the_high_watermark_counts_once_the_logs_match_and_up_to_what_is_written() {
    let mut follower = asking(&held(0, 5, &[(1, 0)]), 2);
    let news = |high_watermark| Answer { answers: None, ..data(0, vec![], high_watermark) };
    follower.answer(Answer { answers: Some(4), ..news(5) });
    assert_eq!(follower.high_watermark(), 2, "the logs may part");
    follower.answer(news(4));
    assert_eq!(follower.high_watermark(), 4, "a leader tells this where they do not");
    follower.answer(data(5, vec![batch(5, 3, 9)], 7));
    assert_eq!(follower.high_watermark(), 5);
    follower.written(Ok(()), nothing);
    assert_eq!(follower.high_watermark(), 7);
    follower.answer(news(6));
    assert_eq!(follower.high_watermark(), 7, "it never falls in a term");
    follower.answer(news(100));
    assert_eq!(follower.high_watermark(), 8);
}

#[test]
fn h7_what_is_written_is_told_and_the_next_is_asked_for_before_it_is() {
    let mut follower = asking(&held(0, 0, &[]), 0);
    assert_eq!(follower.ask(), None, "asked once");
    follower.answer(data(0, vec![batch(0, 2, 8), batch(2, 1, 9)], 0));
    let asked = follower.ask().unwrap();
    assert_eq!((asked.next, asked.last_epoch, asked.written, asked.max_bytes), (3, Some(9), 0, DEMAND_BYTES));
    follower.written(Ok(()), nothing);
    let told = follower.ask().unwrap();
    assert_eq!((told.next, told.written, told.max_bytes), (3, 2, 0));
    assert_eq!(follower.ask(), None);
    follower.written(Ok(()), nothing);
    follower.again();
    let asked = follower.ask().unwrap();
    assert_eq!((asked.next, asked.written, asked.max_bytes), (3, 3, DEMAND_BYTES), "on a new stream");
}

#[test]
fn bytes_that_are_not_written_are_bounded() {
    let mut follower = Follower::new(9, 0, Held::default());
    let mut next = 0;
    while follower.unwritten_bytes < MAX_UNWRITTEN_BYTES {
        assert_eq!(follower.ask().map(|asked| (asked.next, asked.max_bytes)), Some((next, DEMAND_BYTES)));
        follower.answer(data(next, vec![batch(next, 20_000, 9)], 0));
        next += 20_000;
    }
    assert_eq!(follower.ask(), None);
    follower.written(Ok(()), nothing);
    assert_eq!(follower.ask().map(|asked| asked.max_bytes), Some(DEMAND_BYTES));
}

#[test]
fn r5_e4_nothing_is_appended_that_is_not_the_logs_next_or_is_damaged() {
    let mut damaged = batch(5, 2, 9).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let trailing = [batch(5, 1, 9), Bytes::from_static(b"x")].concat();
    let cases: Vec<Bytes> = vec![
        batch(4, 1, 9),
        batch(6, 1, 9),
        batch(5, 1, 2),
        batch(5, 1, 10),
        batch(5, 1, -1),
        damaged.into(),
        trailing.into(),
        batch(5, 2, 9).slice(..70),
        Bytes::new(),
    ];
    for sent in cases {
        let mut follower = asking(&held(0, 5, &[(3, 0)]), 0);
        let effects = follower.answer(data(5, vec![sent.clone()], 0));
        assert!(matches!(&effects[..], [Effect::Pause(Some(_))]), "{sent:?}: {effects:?}");
        assert_eq!(follower.ask(), None, "not at once");
        follower.again();
        assert_eq!(follower.ask().unwrap().next, 5);
    }
    let mut follower = asking(&held(0, 5, &[(3, 0)]), 0);
    let effects = follower.answer(data(5, vec![batch(5, 1, 3), batch(7, 1, 9)], 0));
    assert!(matches!(&effects[..], [Effect::Append(..), Effect::Pause(Some(_))]), "{effects:?}");
}

#[test]
fn q1_the_start_follows_the_leaders() {
    let mut follower = asking(&held(0, 5, &[(3, 0)]), 0);
    let trims = |log_start| Answer { log_start, ..data(5, vec![batch(5, 5, 9)], 0) };
    let effects = follower.answer(trims(4));
    assert!(matches!(&effects[..], [Effect::Append(..), Effect::Trim(4)]), "{effects:?}");
    let news = Answer { answers: None, log_start: 12, ..data(0, vec![], 0) };
    let effects = follower.answer(news.clone());
    assert!(matches!(&effects[..], [Effect::Trim(10)]), "as far as its log goes: {effects:?}");
    assert!(follower.answer(news).is_empty());
}

#[test]
fn q1_a_follower_that_is_too_far_behind_begins_anew() {
    let mut follower = asking(&held(0, 5, &[(3, 0)]), 5);
    let deleted = |next, batches| Answer { batches, log_start: 50, ..answer(next, Outcome::Deleted) };
    // The leader's start lies within its first batch.
    let effects = follower.answer(deleted(5, vec![batch(48, 4, 7)]));
    assert!(matches!(&effects[..], [Effect::Restart(48)]), "{effects:?}");
    follower.written(Ok(()), || held(48, 48, &[(3, 48)]));
    let asked = follower.ask().unwrap();
    assert_eq!((asked.next, asked.last_epoch, asked.written), (48, None, 48));
    let effects = follower.answer(deleted(48, vec![batch(48, 4, 7)]));
    assert!(matches!(&effects[..], [Effect::Append(..), Effect::Trim(50)]), "{effects:?}");
    assert_eq!(follower.ask().unwrap().next, 52);
    let effects = follower.answer(deleted(52, vec![]));
    assert!(matches!(&effects[..], [Effect::Pause(Some(_))]), "it does not lie below: {effects:?}");
    let mut follower = asking(&held(0, 5, &[(3, 0)]), 5);
    let effects = follower.answer(deleted(5, vec![]));
    assert!(matches!(&effects[..], [Effect::Restart(50)]), "of an empty log: {effects:?}");
}

#[test]
fn t1_what_the_leader_has_deleted_goes_before_it_counts_and_may_not_have_been_the_leaders() {
    let deleted = |log_start| Answer { log_start, high_watermark: log_start, ..answer(10, Outcome::Deleted) };
    for (high_watermark, expected) in [(7, "[Restart(10)]"), (10, "[Trim(10)]")] {
        let mut follower = asking(&held(0, 10, &[(1, 0)]), high_watermark);
        let effects = follower.answer(deleted(10));
        assert_eq!(format!("{effects:?}"), expected, "known to be committed: {high_watermark}");
        assert!(!follower.is_matched());
        follower.written(Ok(()), || held(10, 10, &[(1, 10)]));
        let asked = follower.ask().unwrap();
        assert_eq!((asked.next, asked.last_epoch, asked.written), (10, None, 10));
    }
    let effects = asking(&held(0, 10, &[(1, 0)]), 7).answer(deleted(9));
    assert!(matches!(&effects[..], [Effect::Pause(Some(_))]), "not all of it is deleted: {effects:?}");
}

#[test]
fn after_a_refused_append_it_goes_on_with_what_the_log_holds() {
    let mut follower = asking(&held(0, 0, &[]), 0);
    follower.answer(data(0, vec![batch(0, 2, 9), batch(2, 1, 9)], 0));
    let full = || Err(Failure { reason: "the disk is full".to_owned(), lasting: false });
    assert!(follower.written(full(), nothing).is_empty());
    assert_eq!(follower.ask(), None, "until what was behind it has failed too");
    let effects = follower.written(full(), || held(0, 0, &[]));
    assert!(matches!(&effects[..], [Effect::Pause(Some(_))]), "{effects:?}");
    follower.again();
    assert_eq!(follower.ask().unwrap().next, 0);
    follower.answer(data(0, vec![batch(0, 2, 9)], 0));
    let broken = Err(Failure { reason: "input/output error".to_owned(), lasting: true });
    assert!(matches!(&follower.written(broken, nothing)[..], [Effect::Fault(_)]));
}

#[test]
fn a_leader_that_refuses_is_asked_again_later() {
    let mut follower = asking(&held(0, 5, &[(3, 0)]), 0);
    let refused = Answer { answers: None, ..answer(0, Outcome::Refused) };
    assert!(matches!(&follower.answer(refused)[..], [Effect::Pause(None)]));
    assert_eq!(follower.ask(), None);
    follower.again();
    assert_eq!(follower.ask().unwrap().next, 5);
}

// Two logs and what happens between them.

fn done(mut ticket: Ticket) -> Result<(), Failure> {
    let result = ticket.try_recv().expect("storage in memory answers at once");
    result.map_err(|error| Failure { reason: error.to_string(), lasting: true })
}

fn look(log: &dyn Log) -> Held {
    let extent = log.extent();
    Held { start: extent.start, end: extent.end, epochs: log.leader_epochs() }
}

fn read(log: &dyn Log, from: i64, max_bytes: usize) -> Vec<Bytes> {
    let read = log.read(from, i64::MAX, max_bytes);
    futures::executor::block_on(read).unwrap()
}

/// What a leader answers.
fn lead(log: &dyn Log, leader_epoch: i32, asked: Position) -> Answer {
    let Held { start, end, epochs } = look(log);
    let snapshot = Snapshot { log_start: start, log_end: end, ..Snapshot::UNKNOWN };
    let base =
        Answer { leader_epoch, high_watermark: end, log_start: start, answers: Some(asked.next), ..Answer::default() };
    let parted = asked.last_epoch.and_then(|last| divergence(&epochs, &snapshot, asked.next, last));
    if let Some((at, epoch)) = parted {
        return Answer { outcome: Outcome::Diverges(epoch, at), ..base };
    }
    let forgotten = asked.last_epoch.is_some_and(|last| epochs.end_of(last, end).is_none());
    if asked.next < start || forgotten {
        return Answer { outcome: Outcome::Deleted, batches: read(log, start, 300), ..base };
    }
    if asked.next > end {
        return Answer { outcome: Outcome::Diverges(None, end), ..base };
    }
    Answer { batches: read(log, asked.next, 300), ..base }
}

/// Follows until so many answers have been taken, or the follower has all; how often its log was cut. `None`: the log is of
/// no use.
fn follow(leader: &dyn Log, leader_epoch: i32, log: &dyn Log, answers: usize) -> Option<usize> {
    let (mut follower, cuts) = (Follower::new(leader_epoch, 0, look(log)), Cell::new(0));
    for _ in 0..answers {
        let Some(asked) = follower.ask() else { panic!("it asks: {follower:?}") };
        let effects = follower.answer(lead(leader, leader_epoch, asked));
        for effect in effects {
            let result = match effect {
                Effect::Append(batch, header) => {
                    done(log.append(Append { batch, header, append_time: 0, durability: Durability::Os }))
                }
                Effect::Trim(start) => done(log.trim(start)),
                Effect::Truncate(to) => {
                    cuts.set(cuts.get() + 1);
                    let base = read(log, to, 1).first().map(|batch| BatchHeader::parse(batch).unwrap().base_offset);
                    done(log.truncate(base.unwrap_or(to).min(to)))
                }
                Effect::Restart(at) => {
                    cuts.set(cuts.get() + 1);
                    done(log.restart(at))
                }
                Effect::Pause(None) => {
                    assert_eq!(log.extent().end, leader.extent().end, "it has all");
                    return Some(cuts.get());
                }
                Effect::Pause(Some(why)) => panic!("{why}"),
                Effect::Fault(why) => {
                    assert!(log.extent().start > 0, "{why}");
                    return None;
                }
            };
            let then = follower.written(result, || look(log));
            if let [Effect::Fault(why)] = &then[..] {
                // It begins within the batch that would have to go.
                assert!(log.extent().start > 0, "{why}");
                return None;
            }
            assert!(then.is_empty(), "{then:?}");
        }
    }
    Some(cuts.get())
}

/// A leader's term among three replicas: who leads, what it appends and deletes, and how far the others get.
#[derive(Clone, Debug)]
struct Term {
    leader: usize,
    batches: Vec<usize>,
    trims: bool,
    answers: [usize; 3],
}

fn term() -> impl Strategy<Value = Term> {
    let answers = prop::array::uniform3(0usize..5);
    (0usize..3, prop::collection::vec(1usize..4, 0..5), prop::bool::weighted(0.1), answers)
        .prop_map(|(leader, batches, trims, answers)| Term { leader, batches, trims, answers })
}

proptest! {
    #[test]
    fn t1_t2_r2_whatever_happened_to_the_logs_the_followers_becomes_the_leaders(
        terms in prop::collection::vec(term(), 1..14),
    ) {
        let storage = MemoryStorage::new();
        let made = Cell::new(0);
        let empty = || {
            made.set(made.get() + 1);
            storage.create(PartitionId { topic: Uuid::from_u128(1), index: made.get() }).unwrap()
        };
        let mut logs = [empty(), empty(), empty()];
        for (epoch, term) in (1..).zip(&terms) {
            let leader = logs[term.leader].clone();
            done(leader.begin_epoch(epoch)).unwrap();
            for &records in &term.batches {
                let batch = batch(leader.extent().end, records, epoch);
                let header = BatchHeader::parse(&batch).unwrap();
                done(leader.append(Append { batch, header, append_time: 0, durability: Durability::Os })).unwrap();
            }
            if term.trims {
                let extent = leader.extent();
                done(leader.trim(i64::midpoint(extent.start, extent.end))).unwrap();
            }
            for (at, log) in logs.iter_mut().enumerate().filter(|(at, _)| *at != term.leader) {
                if follow(&*leader, epoch, &**log, term.answers[at]).is_none() {
                    *log = empty();
                }
            }
        }
        let epoch = terms.len() as i32 + 1;
        let leader = logs[0].clone();
        // As every leader does: an epoch that it once began, and of which it has lost all records, is then no history of its own.
        done(leader.begin_epoch(epoch)).unwrap();
        for log in &mut logs[1..] {
            let cuts = follow(&*leader, epoch, &**log, 1_000);
            if cuts.is_none() {
                *log = empty();
                follow(&*leader, epoch, &**log, 1_000);
            }
            prop_assert!(cuts.unwrap_or(0) <= terms.len() + 1, "{:?} rounds", cuts);
            let (own, other) = (look(&**log), look(&*leader));
            let from = own.start.max(other.start);
            prop_assert_eq!(own.end, other.end);
            prop_assert_eq!(read(&**log, from, usize::MAX), read(&*leader, from, usize::MAX));
            for offset in from..own.end {
                prop_assert_eq!(own.epochs.at(offset), other.epochs.at(offset), "epoch of {}", offset);
            }
        }
    }
}
