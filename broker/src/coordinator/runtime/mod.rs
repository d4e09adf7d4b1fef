//! The runtime of a shard: what stands between a [`StateMachine`](super::StateMachine) and its log.
//!
//! - [`Shard`]: the core, without I/O, clock or tasks. It is told [`Input`]s and answers with [`Output`]s to be carried out
//!   in order. A simulation drives it with virtual time and may end it between any two steps ([`Step`]).
//! - [`Loader`]: makes a machine of its log. [`frame`]: what the log looks like.
//! - `checkpoint`, `timers`: parts of the core.
//! - [`Coordinator`]: the task around a core and a [`Partition`](crate::partition::Partition), and the handle to ask it.
//!
//! # Promises
//!
//! - Records of a decision are appended all or none: they lie in one batch.
//! - No answer and no event gets out before all records that were decided before it are committed (C4). This goes for reads
//!   too: what they show may not be taken back.
//! - When an append fails nothing that was decided after the last committed record counts: everybody who waits is told that
//!   the outcome is unknown, the state is dropped, and the log read again.
//! - The log is bounded: a checkpoint is written beside the requests, and what it makes superfluous is trimmed once its last
//!   record is committed.
//!
//! It knows nothing of what its machines are for.

mod checkpoint;
pub mod frame;
mod handle;
mod load;
mod read;
mod shard;
mod step;
mod task;
mod timers;

pub use handle::{AskError, Coordinator, Phase, Status};
pub use load::{LoadError, Loaded, Loader};
pub use shard::Shard;
pub use step::{Failure, Input, Output, Step};
pub use task::Setup;

/// When a checkpoint is due, and how large batches get.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// No checkpoint before the log has grown by so many bytes: what a load reads in a fraction of a second.
    pub least_bytes: u64,
    /// Nor before it has grown by so many times the last checkpoint: what checkpoints write stays a small part of it all.
    pub growth: u64,
    /// A batch is closed when it has so many bytes; more only where a single decision needs it.
    pub batch_bytes: usize,
    /// A decision of more bytes is refused.
    pub decision_bytes: usize,
    /// Batches that are being appended at a time.
    pub in_flight: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { least_bytes: 16 << 20, growth: 4, batch_bytes: 512 << 10, decision_bytes: 8 << 20, in_flight: 4 }
    }
}

#[cfg(test)]
mod tests;
