//! The Lease `<cluster>-controller`: an object of Kubernetes, or of the store that brokers of one process share.

use std::time::Duration;

use futures::future::BoxFuture;

use super::core::{Seen, WriteError};

mod embedded;
mod kubernetes;

pub use embedded::EmbeddedLease;
pub use kubernetes::KubernetesLease;

/// The Lease was not read; the log says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unread;

/// A Lease as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The version that it replaces, as it was read; none: there is no Lease.
    pub over: Option<String>,
    /// Who holds it; nobody: it is released.
    pub holder: Option<String>,
    /// How long it holds.
    pub duration: Duration,
    /// Now, in milliseconds since 1970: for people, who may look at the Lease. No process goes by it.
    pub wall_millis: i64,
}

/// Reads and writes the Lease.
pub trait LeaseApi: Send + Sync + 'static {
    /// As it is now, if there is one.
    fn read(&self) -> BoxFuture<'_, Result<Option<Seen>, Unread>>;
    /// Puts a Lease in the place of the version that was read, or makes it.
    fn write(&self, wanted: Wanted) -> BoxFuture<'_, Result<Seen, WriteError>>;
}

/// Name of the Lease of a cluster.
fn name(cluster: &str) -> String {
    format!("{cluster}-controller")
}
