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
            // Each case has logs of its own.
            counter.set(counter.get() + 2);
            run(&mut subject.borrow_mut(), counter.get(), &steps)
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
                    subject.reopen();
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
        proptest::prop_assert_eq!(timeless(&log.producers()), timeless(&model.producers()));
        proptest::prop_assert_eq!(subject.all(&*log), model.stored());
    }
    Ok(())
}

/// The state in its encoded form without append times, of which a start and a truncation know less.
fn timeless(producers: &Producers) -> Vec<u8> {
    let mut bytes = Vec::new();
    producers.encode(&mut bytes);
    let mut at = 5;
    for _ in 0..producers.len() {
        bytes[at + 11..at + 19].fill(0);
        at += 20 + 32 * usize::from(bytes[at + 19]);
    }
    assert_eq!(at, bytes.len(), "the format of producers has changed");
    bytes
}
