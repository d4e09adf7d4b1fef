use taffrail_proto::record::{BatchBuilder, BatchHeader, Compression};
use taffrail_proto::v1::{LogError, Outcome};

use super::*;

mod model;

pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn promise() -> Promise {
    Promise { idempotent: true, retries: true, max_in_flight: 5, delivery_timeout: TIMEOUT }
}

/// A batch of `records` records that carries a number as its timestamp.
pub(super) fn batch(number: i64, records: i32, opened: Instant) -> SealedBatch {
    let mut builder = BatchBuilder::new();
    for _ in 0..records {
        builder.push(None, Some(b"value"), [], number).unwrap();
    }
    let bytes = builder.build(Compression::None, None).unwrap();
    SealedBatch { bytes, records, memory: 100, opened, state: BatchState::new(0) }
}

pub(super) fn refusal(reason: Reason, outcome: Outcome, retriable: bool) -> Error {
    LogError { reason: reason.into(), outcome: outcome.into(), retriable, ..LogError::default() }.into()
}

pub(super) fn not_applied(reason: Reason, retriable: bool) -> Error {
    refusal(reason, Outcome::NotApplied, retriable)
}

fn preceding() -> Error {
    not_applied(Reason::PrecedingFailed, true)
}

fn appended(base_offset: i64) -> Appended {
    Appended { base_offset: Some(base_offset), ..Appended::default() }
}

const IDENTITY: Identity = Identity { id: 7, epoch: 0 };
const NEWER: Identity = Identity { id: 7, epoch: 1 };

/// A queue with an identity and batches 0.. of two records each.
fn queue(batches: i64) -> (Queue, Instant) {
    let (mut queue, now) = (Queue::new(promise()), Instant::now());
    for number in 0..batches {
        queue.push(batch(number, 2, now));
    }
    queue.adopt(IDENTITY, &mut Vec::new());
    (queue, now)
}

/// Everything that the queue wants to send at that time: correlation, number, producer, resume.
fn send_all(queue: &mut Queue, now: Instant) -> Vec<(u32, i64, BatchProducer, bool)> {
    let mut sent = Vec::new();
    while queue.wants(now) == Wants::Send {
        let Sending { correlation, bytes, resume, .. } = queue.send().unwrap();
        let header = BatchHeader::parse(&bytes).unwrap();
        sent.push((correlation, header.base_timestamp, header.producer().unwrap(), resume));
    }
    sent
}

fn numbers(sent: &[(u32, i64, BatchProducer, bool)]) -> Vec<(i64, i16, i32)> {
    sent.iter().map(|(_, number, p, _)| (*number, p.epoch, p.first_sequence)).collect()
}

fn outcomes(ended: &[Ended]) -> Vec<Option<RequestOutcome>> {
    ended.iter().map(|e| e.result.as_ref().err().map(Error::outcome)).collect()
}

fn later(now: Instant) -> Instant {
    now + Duration::from_secs(2)
}

#[test]
fn batches_are_numbered_in_order_and_five_are_in_flight() {
    let (mut queue, now) = queue(7);
    let sent = send_all(&mut queue, now);
    assert_eq!(numbers(&sent), [(0, 0, 0), (1, 0, 2), (2, 0, 4), (3, 0, 6), (4, 0, 8)]);
    let mut ended = Vec::new();
    queue.stored(sent[0].0, Some(appended(40)), &mut ended);
    assert_eq!(ended[0].result.as_ref().unwrap(), &Some(appended(40)));
    assert_eq!(numbers(&send_all(&mut queue, now)), [(5, 0, 10)]);
}

#[test]
fn p1_sequences_wrap_after_the_largest() {
    let (mut queue, now) = queue(2);
    queue.next_sequence = i32::MAX;
    assert_eq!(numbers(&send_all(&mut queue, now)), [(0, 0, i32::MAX), (1, 0, 1)]);
}

#[test]
fn without_an_identity_nothing_is_sent() {
    let (mut queue, now) = (Queue::new(promise()), Instant::now());
    queue.push(batch(0, 1, now));
    assert_eq!(queue.wants(now), Wants::Identity(None));
}

#[test]
fn p3_a_lost_stream_repeats_the_unanswered_as_they_were() {
    let (mut queue, now) = queue(3);
    let first = send_all(&mut queue, now);
    queue.stored(first[0].0, Some(appended(0)), &mut Vec::new());
    queue.disconnected(&Error::closed("stream"), &mut Vec::new());
    let second = send_all(&mut queue, now);
    assert_eq!(numbers(&second), numbers(&first[1..]));
    assert!(!second[0].3, "a new stream has nothing to resume");
    // Answers of the old stream name nothing that is in flight now.
    let mut ended = Vec::new();
    queue.stored(first[1].0, Some(appended(9)), &mut ended);
    assert!(ended.is_empty());
}

#[test]
fn p9_after_a_refusal_the_rest_waits_and_is_resent_in_order_after_a_resume() {
    let (mut queue, now) = queue(4);
    let sent = send_all(&mut queue, now);
    let mut ended = Vec::new();
    queue.refused(sent[0].0, &not_applied(Reason::NotLeader, false), now, 0.5, &mut ended);
    assert_eq!(queue.wants(now), Wants::Nothing, "others are unanswered");
    for (correlation, ..) in &sent[1..] {
        queue.refused(*correlation, &preceding(), now, 0.5, &mut ended);
    }
    assert!(matches!(queue.wants(now), Wants::Wait(_)), "the broker is given time");
    let again = send_all(&mut queue, later(now));
    assert_eq!(numbers(&again), numbers(&sent));
    assert_eq!(again.iter().map(|s| s.3).collect::<Vec<_>>(), [true, false, false, false]);
    assert!(ended.is_empty());
}

#[test]
fn l1_with_too_few_replicas_in_sync_a_batch_is_sent_again_as_it_was() {
    let (mut queue, now) = queue(1);
    let sent = send_all(&mut queue, now);
    let mut ended = Vec::new();
    queue.refused(sent[0].0, &not_applied(Reason::NotEnoughReplicas, true), now, 0.5, &mut ended);
    assert!(matches!(queue.wants(now), Wants::Wait(_)));
    assert_eq!(numbers(&send_all(&mut queue, later(now))), numbers(&sent));
    assert!(ended.is_empty());
}

#[test]
fn a_wish_to_wait_is_kept() {
    let (mut queue, now) = queue(1);
    let sent = send_all(&mut queue, now);
    let busy = LogError {
        reason: Reason::DiskFull.into(),
        outcome: Outcome::NotApplied.into(),
        retriable: true,
        retry_after_ms: 5_000,
        ..LogError::default()
    };
    queue.refused(sent[0].0, &busy.into(), now, 0.0, &mut Vec::new());
    assert_eq!(queue.wants(now), Wants::Wait(now + Duration::from_secs(5)));
}

#[test]
fn p3_an_unknown_outcome_is_retried_under_the_same_sequence() {
    let (mut queue, now) = queue(1);
    let sent = send_all(&mut queue, now);
    let unknown = refusal(Reason::RequestTimeout, Outcome::Unknown, true);
    queue.refused(sent[0].0, &unknown, now, 0.5, &mut Vec::new());
    assert_eq!(numbers(&send_all(&mut queue, later(now))), numbers(&sent));
}

#[test]
fn a_refused_record_fails_its_batch_and_the_next_ones_get_a_new_identity() {
    let (mut queue, now) = queue(3);
    let sent = send_all(&mut queue, now);
    let mut ended = Vec::new();
    queue.refused(sent[0].0, &not_applied(Reason::InvalidRecord, false), now, 0.5, &mut ended);
    assert_eq!(outcomes(&ended), [Some(RequestOutcome::NotApplied)]);
    queue.refused(sent[1].0, &preceding(), now, 0.5, &mut ended);
    queue.refused(sent[2].0, &preceding(), now, 0.5, &mut ended);
    assert_eq!(queue.wants(now), Wants::Identity(Some(IDENTITY)), "sequence 0 was given up");
    queue.adopt(NEWER, &mut ended);
    assert_eq!(numbers(&send_all(&mut queue, now)), [(1, 1, 0), (2, 1, 2)]);
    assert_eq!(ended.len(), 1);
}

#[test]
fn p7_an_unknown_producer_gets_a_new_identity_when_nothing_is_in_flight() {
    let (mut queue, now) = queue(2);
    let sent = send_all(&mut queue, now);
    let mut ended = Vec::new();
    queue.refused(sent[0].0, &not_applied(Reason::UnknownProducer, false), now, 0.5, &mut ended);
    assert_eq!(queue.wants(later(now)), Wants::Nothing);
    queue.refused(sent[1].0, &preceding(), now, 0.5, &mut ended);
    assert_eq!(queue.wants(later(now)), Wants::Identity(Some(IDENTITY)));
    queue.adopt(NEWER, &mut ended);
    assert_eq!(numbers(&send_all(&mut queue, later(now))), [(0, 1, 0), (1, 1, 2)]);
    assert!(ended.is_empty());
}

#[test]
fn p3_what_may_be_stored_is_never_sent_under_a_new_identity() {
    let (mut queue, now) = queue(2);
    send_all(&mut queue, now);
    queue.disconnected(&Error::closed("stream"), &mut Vec::new());
    let again = send_all(&mut queue, now);
    let mut ended = Vec::new();
    queue.refused(again[0].0, &not_applied(Reason::UnknownProducer, false), now, 0.5, &mut ended);
    queue.refused(again[1].0, &preceding(), now, 0.5, &mut ended);
    queue.push(batch(2, 2, now));
    queue.adopt(NEWER, &mut ended);
    assert_eq!(outcomes(&ended), [Some(RequestOutcome::Unknown); 2]);
    assert_eq!(numbers(&send_all(&mut queue, later(now))), [(2, 1, 0)]);
}

#[test]
fn p3_out_of_sequence_resends_from_the_hole_or_takes_a_new_identity_when_there_is_none() {
    let (mut queue, now) = queue(2);
    let sent = send_all(&mut queue, now);
    let gap = not_applied(Reason::OutOfSequence, false);
    // The second is refused for want of the first, whose answer is still to come.
    queue.refused(sent[1].0, &gap, now, 0.5, &mut Vec::new());
    queue.refused(sent[0].0, &not_applied(Reason::QuotaExceeded, true), now, 0.5, &mut Vec::new());
    let again = send_all(&mut queue, later(now));
    assert_eq!(numbers(&again), numbers(&sent));
    // Now what is missing came before the first: it was stored once and is lost.
    queue.refused(again[0].0, &gap, now, 0.5, &mut Vec::new());
    queue.refused(again[1].0, &gap, now, 0.5, &mut Vec::new());
    assert_eq!(queue.wants(later(now)), Wants::Identity(Some(IDENTITY)));
}

#[test]
fn what_runs_out_of_time_ends_with_what_is_known_of_it() {
    let (mut queue, now) = queue(7);
    let sent = send_all(&mut queue, now);
    queue.refused(sent[4].0, &not_applied(Reason::QuotaExceeded, true), now, 0.5, &mut Vec::new());
    let mut ended = Vec::new();
    queue.expire(now + TIMEOUT, None, &mut ended);
    let (unknown, not) = (Some(RequestOutcome::Unknown), Some(RequestOutcome::NotApplied));
    assert_eq!(outcomes(&ended), [unknown, unknown, unknown, unknown, not, not, not]);
    assert!(ended.iter().all(|e| e.result.as_ref().is_err_and(|e| e.kind() == ErrorKind::Timeout)));
    // Late answers change nothing, and what was not stored leaves a hole.
    let late = now + TIMEOUT;
    queue.stored(sent[0].0, Some(appended(0)), &mut ended);
    for (correlation, ..) in &sent[1..4] {
        queue.refused(*correlation, &preceding(), late, 0.5, &mut ended);
    }
    assert_eq!(ended.len(), 7);
    assert!(queue.is_empty());
    queue.push(batch(9, 1, late));
    assert_eq!(queue.wants(later(late)), Wants::Identity(Some(IDENTITY)));
}

#[test]
fn a_late_yes_leaves_no_hole() {
    let (mut queue, now) = queue(1);
    let sent = send_all(&mut queue, now);
    let mut ended = Vec::new();
    queue.expire(now + TIMEOUT, None, &mut ended);
    queue.stored(sent[0].0, Some(appended(0)), &mut ended);
    queue.push(batch(1, 1, now + TIMEOUT));
    assert_eq!(numbers(&send_all(&mut queue, now + TIMEOUT)), [(1, 0, 2)]);
    assert_eq!(ended.len(), 1);
}

#[test]
fn at_least_once_repeats_without_numbers() {
    let mut queue = Queue::new(Promise { idempotent: false, ..promise() });
    let now = Instant::now();
    queue.push(batch(0, 1, now));
    let first = queue.send().unwrap();
    assert!(BatchHeader::parse(&first.bytes).unwrap().producer().is_none());
    queue.disconnected(&Error::closed("stream"), &mut Vec::new());
    assert_eq!(queue.wants(now), Wants::Send);
    assert_eq!(queue.send().unwrap().bytes, first.bytes);
}

#[test]
fn at_most_once_never_repeats() {
    let mut queue = Queue::new(Promise { idempotent: false, retries: false, ..promise() });
    let (now, mut ended) = (Instant::now(), Vec::new());
    for number in 0..3 {
        queue.push(batch(number, 1, now));
    }
    let refused = queue.send().unwrap().correlation;
    queue.refused(refused, &not_applied(Reason::QuotaExceeded, true), now, 0.5, &mut ended);
    queue.send().unwrap();
    queue.disconnected(&Error::closed("stream"), &mut ended);
    assert_eq!(outcomes(&ended), [Some(RequestOutcome::NotApplied), Some(RequestOutcome::Unknown)]);
    let written = queue.send().unwrap().correlation;
    queue.stored(written, None, &mut ended);
    assert_eq!(ended[2].result.as_ref().unwrap(), &None);
    assert!(queue.is_empty());
}

#[test]
fn giving_up_ends_everything_once() {
    let (mut queue, now) = queue(7);
    send_all(&mut queue, now);
    let mut ended = Vec::new();
    queue.fail_all(&Error::closed("producer"), &mut ended);
    let (unknown, not) = (Some(RequestOutcome::Unknown), Some(RequestOutcome::NotApplied));
    assert_eq!(outcomes(&ended), [unknown, unknown, unknown, unknown, unknown, not, not]);
    assert!(queue.is_empty());
}
