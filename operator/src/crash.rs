//! Crash points: a test makes the operator die right after a step has been done, so that what a death leaves behind there
//! can be looked at. For tests only: nothing else may set [`VARIABLE`].

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::step::Step;

/// Environment variable that arms a point: the name of a step.
pub const VARIABLE: &str = "TAFFRAIL_CRASH_AT";

/// The variable's value names no step.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{VARIABLE}={0:?} is no step of the operator; it is for tests only, unset it")]
pub struct UnknownStep(String);

/// The armed step as its discriminant; 0: none.
static ARMED: AtomicU8 = AtomicU8::new(0);

/// Arms the step that the environment names, if it does. Called once, at the process's start.
pub fn arm_from_environment() -> Result<(), UnknownStep> {
    let Some(value) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let value = value.to_string_lossy();
    let step = Step::by_name(&value).ok_or_else(|| UnknownStep(value.to_string()))?;
    ARMED.store(step as u8, Relaxed);
    Ok(())
}

/// To be called when a step has been done, and had something to do: dies there if it is armed, without any tidying up.
pub fn done(step: Step) {
    if ARMED.load(Relaxed) == step as u8 {
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_a_name_of_its_own() {
        for step in Step::ALL {
            assert_eq!(Step::by_name(step.name()), Some(step));
        }
        assert_eq!(Step::by_name("nonsense"), None);
    }
}
