//! State follows the log: any mix of operations leaves what a replay of the list of them gives.

use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::model::{Model, Step, steps};
use super::*;
use crate::storage::producers::Producers;

/// Cases of the property; each opens several storages.
const CASES: u32 = 24;

pub(in crate::storage) fn t6_state_is_that_of_a_replay(subject: &mut Subject) {
    let runner_config = Config { cases: CASES, max_shrink_iters: 200, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(runner_config, deterministic());
    let subject = std::cell::RefCell::new(subject);
    let counter = std::cell::Cell::new(0);
    runner
        .run(&steps(), |steps| {
            let mut subject = subject.borrow_mut();
            if subject.opened.is_err() {
                // The case that is being shrunk: with what it left, no smaller one could tell more.
                return Ok(());
            }
            // Each case has logs of its own.
            counter.set(counter.get() + 2);
            run(&mut subject, counter.get(), &steps)
        })
        .unwrap();
}

fn deterministic() -> proptest::test_runner::TestRng {
    proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha)
}

fn run(subject: &mut Subject, first: i32, steps: &[(i32, Step)]) -> Result<(), TestCaseError> {
    let mut models = [Model::default(), Model::default()];
    let mut tickets = Vec::new();
    for (log, step) in steps {
        match step {
            Step::Reopen | Step::Maintain => {
                for ticket in tickets.drain(..) {
                    subject.done(ticket).map_err(|fault| TestCaseError::fail(fault.to_string()))?;
                }
                compare(subject, first, &models)?;
                if matches!(step, Step::Maintain) {
                    subject.storage().maintain(0).unwrap();
                } else {
                    let fails = |fault: StorageError| TestCaseError::fail(format!("it does not open again: {fault}"));
                    subject.try_reopen().map_err(fails)?;
                }
                compare(subject, first, &models)?;
            }
            step => {
                if let Some(operation) = models[*log as usize].step(step) {
                    tickets.push(operation(&*subject.log(first + log)));
                }
            }
        }
    }
    for ticket in tickets {
        subject.done(ticket).map_err(|fault| TestCaseError::fail(fault.to_string()))?;
    }
    compare(subject, first, &models)
}

fn compare(subject: &Subject, first: i32, models: &[Model; 2]) -> Result<(), TestCaseError> {
    for (index, model) in models.iter().enumerate() {
        let log = subject.log(first + index as i32);
        proptest::prop_assert_eq!(log.extent(), model.extent);
        proptest::prop_assert_eq!(&*log.leader_epochs(), &model.epochs);
        check_producers(&log.producers(), model)?;
        proptest::prop_assert_eq!(subject.all(&*log), model.stored());
    }
    Ok(())
}

/// What is known of a producer: id, epoch, batches as they are encoded. Without append times, of which a start and a
/// truncation know less.
type Known<'a> = (&'a [u8], &'a [u8], Vec<&'a [u8]>);

fn encoded(producers: &Producers) -> Vec<u8> {
    let mut bytes = Vec::new();
    producers.encode(&mut bytes);
    bytes
}

fn known(encoded: &[u8]) -> Vec<Known<'_>> {
    let (mut rest, mut all) = (&encoded[5..], Vec::new());
    while let Some((fixed, batches)) = rest.split_at_checked(20) {
        let (batches, after) = batches.split_at(32 * usize::from(fixed[19]));
        all.push((&fixed[..8], &fixed[8..10], batches.chunks(32).collect()));
        rest = after;
    }
    assert!(rest.is_empty(), "the format of producers has changed");
    all
}

/// Producers are those of a replay. A truncation may forget what only batches below the log's start tell (P6 holds for logs
/// that were not truncated).
fn check_producers(found: &Producers, model: &Model) -> Result<(), TestCaseError> {
    let (found, wanted) = (encoded(found), encoded(&model.producers()));
    let (found, wanted) = (known(&found), known(&wanted));
    if !model.truncated {
        proptest::prop_assert_eq!(found, wanted);
        return Ok(());
    }
    let base = |batch: &&[u8]| i64::from_be_bytes(batch[8..16].try_into().expect("8 bytes"));
    for (id, epoch, batches) in &wanted {
        let kept = found.iter().find(|(other, ..)| other == id).map_or(&[][..], |(_, _, kept)| kept);
        let needed: Vec<_> = batches.iter().filter(|batch| base(batch) >= model.extent.start).collect();
        proptest::prop_assert!(batches.ends_with(kept), "{:?} is not the end of {:?}", kept, batches);
        proptest::prop_assert!(kept.len() >= needed.len(), "producer {:?} {:?}: {:?}, {:?}", id, epoch, kept, needed);
    }
    proptest::prop_assert!(found.len() <= wanted.len());
    Ok(())
}
