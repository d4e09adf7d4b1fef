//! Whether this operator is ready, and why not. `/readyz` repeats it.

use std::sync::Arc;

use tokio::sync::watch;

/// Where the process is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It waits for what it needs: what.
    Waiting(String),
    /// Another operator acts; this one takes over when that goes.
    Standby,
    /// It acts.
    Acting,
    /// It stops.
    Stopping,
}

/// The phase of this process; shared by all who tell or set it.
#[derive(Debug)]
pub struct Readiness(watch::Sender<Phase>);

impl Readiness {
    /// Of a process that begins.
    pub fn new() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(Phase::Waiting("starting".to_owned()))))
    }

    /// Goes to a phase and says so in the log, if it is another.
    pub fn set(&self, phase: Phase) {
        if !self.0.send_if_modified(|present| std::mem::replace(present, phase.clone()) != phase) {
            return;
        }
        match phase {
            Phase::Waiting(what) => tracing::warn!("waiting: {what}"),
            Phase::Standby => {
                tracing::info!("standing by: another operator has the Lease, or this one is asking for it");
            }
            Phase::Acting => tracing::info!("acting: this operator has the Lease"),
            Phase::Stopping => tracing::info!("stopping"),
        }
    }

    /// Why it is not ready; none: it is. One that stands by is ready: it can take over at any time.
    pub fn reason(&self) -> Option<String> {
        match &*self.0.borrow() {
            Phase::Waiting(what) => Some(format!("waiting: {what}")),
            Phase::Stopping => Some("stopping".to_owned()),
            Phase::Standby | Phase::Acting => None,
        }
    }
}
