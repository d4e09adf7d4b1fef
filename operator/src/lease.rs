//! Which of several operators acts: the one that has the Lease.
//!
//! A crate that trusts wall clocks is good enough here: two operators that act at once write the same objects, since both
//! decide from what is there, and what must not be decided twice (a topic's identity) is written only over what was read.

use std::time::Duration;

use kube::Client;
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Where the Lease is, and who asks for it.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// This operator's name in it, unique for each process.
    pub identity: String,
    /// How long it holds without being renewed.
    pub duration: Duration,
}

/// A Lease that is asked for until this is given up.
#[derive(Debug)]
pub struct Lease {
    held: watch::Receiver<bool>,
    task: JoinHandle<Result<LeaseManager, LeaseManagerError>>,
}

impl Lease {
    /// Begins to ask for it.
    pub async fn ask(client: Client, settings: &LeaseSettings) -> Result<Self, LeaseManagerError> {
        let seconds = settings.duration.as_secs().max(3);
        let manager = LeaseManagerBuilder::new(client, &settings.name)
            .with_namespace(&settings.namespace)
            .with_identity(&settings.identity)
            .with_grace((seconds / 3).min(5))
            .with_duration(seconds)
            .build()
            .await?;
        let (held, task) = manager.watch().await;
        Ok(Self { held, task })
    }

    /// Waits until it is held, or no longer.
    pub async fn wait_for(&mut self, held: bool) {
        // The sender lives as long as this receiver.
        let _ = self.held.wait_for(|now| *now == held).await;
    }

    /// Gives it back, so that another operator need not wait for its end.
    pub async fn give_back(self) {
        drop(self.held);
        if let Ok(Err(error)) = self.task.await {
            tracing::warn!(%error, "the Lease could not be given back: another operator takes over when it ends");
        }
    }
}
