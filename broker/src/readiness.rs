//! Whether this broker should get requests, and why not. It decides; `/readyz` and the gRPC health service repeat it.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use crate::storage::Status;

/// Where the process is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Starting: the step it is at.
    Starting(&'static str),
    /// Its data is damaged in a way that only a person can decide on: what to do.
    Damaged(String),
    /// Serving.
    Serving,
    /// Stopping: requests under way are finished, no new ones are wanted.
    Draining,
}

/// Why a broker is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// Not serving, by its phase.
    Phase(Phase),
    /// Storage takes no more writes, for this reason.
    StorageFailed(String),
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Phase(Phase::Starting(step)) => write!(f, "starting: {step}"),
            Self::Phase(Phase::Damaged(what)) => write!(f, "data damaged: {what}"),
            Self::Phase(Phase::Serving) => f.write_str("serving"),
            Self::Phase(Phase::Draining) => f.write_str("stopping: requests under way are being finished"),
            Self::StorageFailed(reason) => write!(f, "storage takes no more writes: {reason}; restart the broker"),
        }
    }
}

/// Reasons for not being ready; none: it is. A full disk is none of them: reads and deletes go on, and taking the broker
/// out of the Service would stop them too.
fn reasons(phase: &Phase, status: Option<&Status>) -> Vec<NotReady> {
    let phase = (*phase != Phase::Serving).then(|| NotReady::Phase(phase.clone()));
    let failed = status.and_then(|s| s.failed.clone()).map(NotReady::StorageFailed);
    phase.into_iter().chain(failed).collect()
}

type StatusSource = Box<dyn Fn() -> Status + Send + Sync>;

/// The readiness of this process; shared by all who tell or set it.
pub struct Readiness {
    phase: watch::Sender<Phase>,
    status: std::sync::OnceLock<StatusSource>,
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Readiness({:?})", *self.phase.borrow())
    }
}

impl Readiness {
    /// Starting, at this step.
    pub fn new(step: &'static str) -> Arc<Self> {
        Arc::new(Self { phase: watch::Sender::new(Phase::Starting(step)), status: std::sync::OnceLock::new() })
    }

    /// Goes to a phase and says so in the log.
    pub fn set(&self, phase: Phase) {
        self.phase.send_replace(phase);
        match &*self.phase.borrow() {
            Phase::Starting(step) => tracing::info!(step, "starting"),
            Phase::Damaged(what) => tracing::error!(what, "data is damaged: not ready"),
            Phase::Serving => tracing::info!("ready"),
            Phase::Draining => tracing::info!("draining: not ready any more"),
        }
    }

    /// From now on a failed storage makes the broker not ready.
    pub fn watch_storage(&self, status: StatusSource) {
        // A second storage in one process would be a fault of the wiring; the first stays.
        let _ = self.status.set(status);
    }

    /// Why it is not ready; nothing: it is.
    pub fn reasons(&self) -> Vec<NotReady> {
        reasons(&self.phase.borrow(), self.status.get().map(|status| status()).as_ref())
    }

    /// Tells of each change of phase.
    pub fn subscribe(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_serving_with_a_storage_that_writes() {
        let failed = Status { failed: Some("fsync: EIO".into()), ..Status::default() };
        let full = Status { disk_full: true, ..Status::default() };
        for (phase, status, expected) in [
            (Phase::Starting("opening storage"), None, vec!["starting: opening storage"]),
            (Phase::Serving, None, vec![]),
            (Phase::Serving, Some(&full), vec![]),
            (Phase::Serving, Some(&failed), vec!["storage takes no more writes: fsync: EIO; restart the broker"]),
            (Phase::Damaged("x".into()), None, vec!["data damaged: x"]),
        ] {
            let told: Vec<String> = reasons(&phase, status).iter().map(ToString::to_string).collect();
            assert_eq!(told, expected, "{phase:?}");
        }
        assert_eq!(reasons(&Phase::Draining, Some(&failed)).len(), 2);
    }
}
