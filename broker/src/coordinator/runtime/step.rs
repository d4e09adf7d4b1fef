//! What a core is told, and what it wants carried out.

use bytes::Bytes;
use taffrail_proto::record::BatchHeader;

use crate::coordinator::StateMachine;

/// What the core is told. `R` stands for whoever waits for an answer.
pub enum Input<M: StateMachine, R> {
    /// A request, and whom to answer.
    Request(M::Request, R),
    /// Time has passed.
    Tick,
    /// The world has changed.
    World,
    /// The oldest append under way is committed; the offset of its first record.
    Appended(i64),
    /// The trim is over.
    Trimmed,
}

/// What is to be carried out, in order.
pub enum Output<M: StateMachine, R> {
    /// Append this batch, behind those before it.
    Append {
        /// What it is for.
        step: Step,
        /// A whole batch.
        batch: Bytes,
        /// Its header, parsed.
        header: BatchHeader,
    },
    /// Give up the log before this offset.
    Trim(i64),
    /// Answer.
    Answer(R, Result<M::Answer, Failure>),
    /// Tell.
    Event(M::Event),
}

/// The steps at which a death leaves something behind that a load must get right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Changes are about to be appended.
    Changes,
    /// The begin of a checkpoint is.
    CheckpointBegin,
    /// Parts of a checkpoint are.
    CheckpointParts,
    /// The end of a checkpoint is.
    CheckpointEnd,
    /// The log is about to be trimmed.
    Trim,
    /// What is committed is about to be answered or told.
    Answer,
}

impl Step {
    /// Each of them.
    pub const ALL: [Self; 6] =
        [Self::Changes, Self::CheckpointBegin, Self::CheckpointParts, Self::CheckpointEnd, Self::Trim, Self::Answer];
}

impl<M: StateMachine, R> Output<M, R> {
    /// Which step carries it out.
    pub fn step(&self) -> Step {
        match self {
            Self::Append { step, .. } => *step,
            Self::Trim(_) => Step::Trim,
            Self::Answer(..) | Self::Event(_) => Step::Answer,
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The log could not be written. Whether the request took effect shows when the log is read again.
    #[error("the coordinator's log could not be written: whether the request took effect is unknown")]
    Unknown,
    /// Another request was parked under the same name.
    #[error("another request took the place of this one while it waited")]
    Replaced,
    /// The decision would take more bytes than may be appended at once. Nothing was changed.
    #[error("the request would change more than {0} bytes of state at once")]
    TooLarge(usize),
}
