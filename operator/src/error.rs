//! What keeps a reconcile from being finished.
//!
//! Waiting is no error, and neither is an object that asks for what cannot be: both are outcomes, told by conditions. What is
//! left is the API server's refusal or absence, and objects of others in the way.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::ResourceExt;

use crate::step::Step;

/// A step of a reconcile failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {cause}")]
pub struct Error {
    /// Which.
    pub step: Step,
    /// Why.
    #[source]
    pub cause: Cause,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The API server refused, or could not be asked.
    #[error("{0}")]
    Api(#[from] Box<kube::Error>),
    /// An object of that name is there and belongs to somebody else.
    #[error("{kind} {name} is there and is not this Cluster's: delete or rename it")]
    Taken {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// An object of an earlier Cluster of the same name is still being collected.
    #[error("{kind} {name} of an earlier Cluster of this name is still being deleted")]
    Leaving {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
}

impl From<kube::Error> for Cause {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

impl Cause {
    /// At this step.
    pub fn at(self, step: Step) -> Error {
        Error { step, cause: self }
    }

    /// Somebody has written the object meanwhile: what is there now has to be looked at again.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(error) if code(error) == Some(409))
    }
}

/// The HTTP status of the API server's answer, if it gave one.
pub fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// Gives a failed step its name.
pub trait AtStep<T> {
    /// At this step.
    fn at(self, step: Step) -> Result<T, Error>;
}

impl<T, E: Into<Cause>> AtStep<T> for Result<T, E> {
    fn at(self, step: Step) -> Result<T, Error> {
        self.map_err(|error| error.into().at(step))
    }
}

/// When an object is looked at again after so many failures in a row: soon at first, every minute in the end.
pub fn backoff(failures: u32) -> Duration {
    Duration::from_millis(500u64.saturating_mul(1 << failures.min(10))).min(Duration::from_mins(1))
}

/// How often in a row each object has failed.
#[derive(Debug, Default)]
pub struct Failures(Mutex<HashMap<(Option<String>, String), u32>>);

impl Failures {
    /// It has failed once more: how often it had before.
    pub fn count(&self, object: &impl ResourceExt) -> u32 {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry((object.namespace(), object.name_any())).or_default();
        *count += 1;
        *count - 1
    }

    /// It has not failed.
    pub fn forget(&self, object: &impl ResourceExt) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !failures.is_empty() {
            failures.remove(&(object.namespace(), object.name_any()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_tried_again_ever_later_up_to_a_minute() {
        let waits: Vec<u64> = (0..9).map(|failures| backoff(failures).as_millis() as u64).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(backoff(u32::MAX), Duration::from_mins(1));
    }
}
