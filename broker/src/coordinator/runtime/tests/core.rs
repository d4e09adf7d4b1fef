//! The core, with a log in a vector.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use taffrail_proto::record::{BatchHeader, Scratch, records};

use super::super::{Failure, Input, Limits, LoadError, Loaded, Loader, Output, Shard, Step};
use super::toy::{Answer, Ask, Toy};
use crate::coordinator::{Env, StateMachine as _};

const LIMITS: Limits = Limits { least_bytes: 1_000, growth: 2, batch_bytes: 400, decision_bytes: 4_000, in_flight: 2 };

/// A shard, its log, and what came of its steps.
struct Bench {
    shard: Shard<Toy, u32>,
    /// Key and value of each record, from offset 0.
    log: Vec<(Bytes, Bytes)>,
    log_start: usize,
    /// Appends that are not committed.
    waiting: VecDeque<(Step, Bytes, BatchHeader)>,
    trims: Vec<i64>,
    answers: Vec<(u32, Result<Answer, Failure>)>,
    events: Vec<String>,
    steps: Vec<Step>,
    now: Duration,
    world: u64,
}

fn load(log: &[(Bytes, Bytes)], log_start: usize) -> Result<Loaded<Toy>, LoadError> {
    let mut loader = Loader::new(Toy::default, log_start as i64);
    for (offset, (key, value)) in log.iter().enumerate().skip(log_start) {
        loader.record(offset as i64, key, value)?;
    }
    loader.finish()
}

impl Bench {
    fn new() -> Self {
        Self::of(Vec::new(), 0)
    }

    fn of(log: Vec<(Bytes, Bytes)>, log_start: usize) -> Self {
        let loaded = load(&log, log_start).unwrap();
        let env = Env { now: Duration::ZERO, log_millis: 0, wall_millis: 1, world: &7 };
        let (shard, outputs) = Shard::new(loaded, LIMITS, &env);
        let mut bench = Self {
            shard,
            log,
            log_start,
            waiting: VecDeque::new(),
            trims: vec![],
            answers: vec![],
            events: vec![],
            steps: vec![],
            now: Duration::ZERO,
            world: 7,
        };
        bench.take(outputs);
        bench
    }

    fn take(&mut self, outputs: Vec<Output<Toy, u32>>) {
        for output in outputs {
            self.steps.push(output.step());
            match output {
                Output::Append { step, batch, header } => self.waiting.push_back((step, batch, header)),
                Output::Trim(offset) => self.trims.push(offset),
                Output::Answer(who, answer) => self.answers.push((who, answer)),
                Output::Event(event) => self.events.push(event),
            }
        }
    }

    fn apply(&mut self, inputs: Vec<Input<Toy, u32>>) {
        let env = Env { now: self.now, log_millis: 0, wall_millis: 1, world: &self.world };
        let outputs = self.shard.apply(inputs, &env);
        self.take(outputs);
    }

    fn ask(&mut self, who: u32, ask: Ask) {
        self.apply(vec![Input::Request(ask, who)]);
    }

    /// The oldest append is committed.
    fn commit(&mut self) -> Option<Step> {
        let (step, batch, _) = self.waiting.pop_front()?;
        let base = self.log.len() as i64;
        for record in records(&batch, 1 << 20, &mut Scratch::new()).unwrap() {
            let record = record.unwrap();
            self.log.push((record.key.unwrap(), record.value.unwrap()));
        }
        self.apply(vec![Input::Appended(base)]);
        Some(step)
    }

    fn settle(&mut self) {
        while self.commit().is_some() {
            if let Some(offset) = self.trims.pop() {
                self.log_start = offset as usize;
                self.apply(vec![Input::Trimmed]);
            }
        }
    }
}

#[test]
fn c4_an_answer_waits_until_all_that_was_decided_before_is_committed() {
    let mut bench = Bench::new();
    bench.ask(1, Ask::Set(vec![("a", 5)]));
    bench.ask(2, Ask::Get("a"));
    assert!(bench.answers.is_empty() && bench.events.is_empty());
    assert_eq!(bench.commit(), Some(Step::Changes), "what the load decided");
    assert!(bench.answers.is_empty());
    bench.commit();
    assert_eq!(bench.answers, [(1, Ok(Some(5))), (2, Ok(Some(5)))]);
    assert_eq!(bench.events, ["a"]);
    bench.ask(3, Ask::Get("a"));
    assert_eq!(bench.answers.last(), Some(&(3, Ok(Some(5)))), "nothing is under way");
}

#[test]
fn requests_that_come_while_appends_are_under_way_are_appended_together() {
    let mut bench = Bench::new();
    for who in 0..10 {
        bench.ask(who, Ask::Set(vec![("a", u64::from(who))]));
    }
    assert_eq!(bench.waiting.len(), LIMITS.in_flight);
    bench.settle();
    assert_eq!(bench.steps.iter().filter(|step| **step == Step::Changes).count(), 3, "load, the first, the others");
    assert_eq!(bench.answers.len(), 10);
}

#[test]
fn records_of_one_decision_lie_in_one_batch_however_full_that_is() {
    let mut bench = Bench::new();
    bench.settle();
    bench.apply(vec![Input::Request(Ask::Set(vec![("a", 1); 8]), 1), Input::Request(Ask::Set(vec![("b", 2); 30]), 2)]);
    let counts: Vec<_> = bench.waiting.iter().map(|(_, _, header)| header.record_count).collect();
    assert_eq!(counts, [8, 30]);
}

#[test]
fn a_decision_that_is_too_large_changes_nothing() {
    let mut bench = Bench::new();
    bench.ask(1, Ask::SetLong(5_000));
    bench.settle();
    assert_eq!(bench.answers, [(1, Err(Failure::TooLarge(4_000)))]);
    assert_eq!(bench.shard.machine().get(&"x".repeat(100)), None);
}

#[test]
fn a_parked_request_is_answered_by_a_later_decision_once_that_is_committed() {
    let mut bench = Bench::new();
    bench.settle();
    bench.ask(1, Ask::Await("a", 3, Duration::from_secs(10)));
    bench.ask(2, Ask::Set(vec![("a", 3)]));
    assert!(bench.answers.is_empty());
    bench.settle();
    assert_eq!(bench.answers, [(2, Ok(Some(3))), (1, Ok(Some(3)))]);
    assert_eq!(bench.shard.next_tick(), None, "its timer is cancelled");
}

#[test]
fn a_timer_runs_out_at_its_time() {
    let mut bench = Bench::new();
    bench.settle();
    bench.ask(1, Ask::Await("a", 3, Duration::from_secs(10)));
    assert_eq!(bench.shard.next_tick(), Some(Duration::from_secs(10)));
    bench.now = Duration::from_millis(9_999);
    bench.apply(vec![Input::Tick]);
    assert!(bench.answers.is_empty());
    bench.now = Duration::from_secs(10);
    bench.apply(vec![Input::Tick]);
    assert_eq!(bench.answers, [(1, Ok(None))]);
}

#[test]
fn a_request_parked_under_the_name_of_another_takes_its_place() {
    let mut bench = Bench::new();
    bench.settle();
    bench.ask(1, Ask::Await("a", 3, Duration::from_secs(10)));
    bench.ask(2, Ask::Await("a", 3, Duration::from_secs(10)));
    assert_eq!(bench.answers, [(1, Err(Failure::Replaced))]);
}

#[test]
fn a_change_of_the_world_is_decided_on() {
    let mut bench = Bench::new();
    bench.world = 9;
    bench.apply(vec![Input::World]);
    bench.settle();
    assert_eq!(bench.shard.machine().get("world"), Some(9));
}

#[test]
fn when_the_log_fails_everybody_who_waits_is_told_that_the_outcome_is_unknown() {
    let mut bench = Bench::new();
    bench.ask(1, Ask::Set(vec![("a", 5)]));
    bench.ask(2, Ask::Get("a"));
    bench.ask(3, Ask::Await("b", 1, Duration::from_secs(1)));
    let mut told: Vec<_> = bench
        .shard
        .fail()
        .into_iter()
        .map(|output| match output {
            Output::Answer(who, answer) => (who, answer),
            _ => panic!("only answers"),
        })
        .collect();
    told.sort_by_key(|(who, _)| *who);
    assert_eq!(told, [1, 2, 3].map(|who| (who, Err(Failure::Unknown))));
}

/// Sets numbers until a checkpoint has begun; then `step` by step.
fn until(bench: &mut Bench, step: Step) {
    for number in 0..1_000 {
        bench.ask(0, Ask::Set(vec![("a", number), ("b", number), ("c", number % 7)]));
        bench.ask(0, Ask::Set(vec![(["d", "e", "f", "g"][number as usize % 4], number)]));
        if bench.steps.contains(&step) {
            return;
        }
        bench.commit();
    }
    panic!("{step:?} was not reached");
}

#[test]
fn a_checkpoint_is_written_beside_the_changes_and_then_the_log_is_trimmed() {
    let mut bench = Bench::new();
    until(&mut bench, Step::Trim);
    assert!(bench.trims[0] > 0);
    bench.log_start = bench.trims.pop().unwrap() as usize;
    bench.apply(vec![Input::Trimmed]);
    bench.settle();
    let loaded = load(&bench.log, bench.log_start).unwrap();
    assert_eq!(loaded.machine, *bench.shard.machine());
    assert!(loaded.checkpoint_bytes > 0, "it begins with the checkpoint");
}

#[test]
fn the_log_is_trimmed_only_once_the_end_of_the_checkpoint_is_committed() {
    let mut bench = Bench::new();
    until(&mut bench, Step::CheckpointEnd);
    while let Some((step, ..)) = bench.waiting.front().cloned() {
        assert!(bench.trims.is_empty());
        bench.commit();
        if step == Step::CheckpointEnd {
            break;
        }
    }
    assert_eq!(bench.trims.len(), 1);
}

#[test]
fn c3_what_is_loaded_is_what_was_live_wherever_the_log_ends() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.steps.clear();
        until(&mut bench, Step::Trim);
        bench.log_start = bench.trims.pop().unwrap() as usize;
        bench.apply(vec![Input::Trimmed]);
    }
    bench.settle();
    let mut plain = Toy::default();
    for (offset, (key, value)) in bench.log.iter().enumerate() {
        if key[0] == 0 {
            plain.replay(&Toy::decode(&key[1..], value).unwrap());
        }
        assert_eq!(load(&bench.log[..=offset], 0).unwrap().machine, plain, "at {offset}");
        if offset > bench.log_start && load(&bench.log[..=offset], bench.log_start).is_ok() {
            assert_eq!(load(&bench.log[..=offset], bench.log_start).unwrap().machine, plain, "at {offset}, trimmed");
        }
    }
    let end = load(&bench.log, bench.log_start).unwrap().machine;
    assert_eq!((&end, &plain), (bench.shard.machine(), bench.shard.machine()));
}

#[test]
fn after_an_unfinished_checkpoint_another_one_is_written() {
    for step in [Step::CheckpointBegin, Step::CheckpointParts, Step::CheckpointEnd] {
        let mut bench = Bench::new();
        until(&mut bench, step);
        // The step itself is in the log, and then the process dies.
        while bench.commit() != Some(step) {}
        let mut again = Bench::of(bench.log, bench.log_start);
        until(&mut again, Step::Trim);
        let start = again.trims[0] as usize;
        again.settle();
        assert_eq!(load(&again.log, start).unwrap().machine, *again.shard.machine(), "{step:?}");
    }
}

#[test]
fn a_log_whose_beginning_is_gone_without_a_checkpoint_does_not_load() {
    let mut bench = Bench::new();
    bench.ask(1, Ask::Set(vec![("a", 5)]));
    bench.settle();
    assert_eq!(load(&bench.log, 1).unwrap_err(), LoadError::Incomplete(1));
}

#[test]
fn a_log_that_is_not_understood_does_not_load() {
    let record = |key: &'static [u8], value: &'static [u8]| (Bytes::from_static(key), Bytes::from_static(value));
    assert_eq!(load(&[record(b"", b"")], 0).unwrap_err(), LoadError::Unreadable(0));
    assert_eq!(load(&[record(b"\0a", b"short")], 0).unwrap_err(), LoadError::Unreadable(0));
    assert_eq!(load(&[record(b"\x01a", &[0; 8])], 0).unwrap_err(), LoadError::BrokenCheckpoint(0));
    let end: &[u8] = &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
    assert_eq!(
        load(&[record(&[2], &[1]), record(&[3], end)], 0).unwrap_err(),
        LoadError::BrokenCheckpoint(1),
        "parts are missing"
    );
}
