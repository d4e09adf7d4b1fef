//! What the task that owns a partition is asked to do, and how it answers.

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::batch::OwnedBatch;
use super::{Acks, AppendError, Appended, DeleteRecordsError, Order};
use crate::replication::View;

/// Who is told what became of an append.
pub(super) struct AppendReply {
    pub(super) to: oneshot::Sender<Result<Appended, AppendError>>,
    pub(super) order: Option<Order>,
}

impl AppendReply {
    pub(super) fn may_go(&self) -> bool {
        !self.order.as_ref().is_some_and(Order::has_ended)
    }

    pub(super) fn answer(self, result: Result<Appended, AppendError>) {
        if let (Err(_), Some(order)) = (&result, &self.order) {
            order.end();
        }
        answer(self.to, result);
    }
}

pub(super) type TrimReply = oneshot::Sender<Result<i64, DeleteRecordsError>>;

/// A batch in line.
pub(super) struct AppendCommand {
    pub(super) batch: OwnedBatch,
    pub(super) acks: Acks,
    pub(super) leader_epoch: Option<i32>,
    pub(super) permit: Option<OwnedSemaphorePermit>,
    pub(super) reply: AppendReply,
}

/// What the owner is asked to do. Small: each channel allocates for 32 of them, and there are 10,000 channels.
pub(super) enum Command {
    Append(Box<AppendCommand>),
    /// Raise the log's start.
    Trim {
        to: i64,
        reply: TrimReply,
    },
    /// Followers have said how far they are: see [`Shared::replication`](super::local::Shared::replication).
    Reported,
    /// The slice shows another state.
    Adopt(Box<View>),
    /// Finish what is in flight and end.
    Stop,
}

/// Answers what came too late.
pub(super) fn refuse_closed(command: Command) {
    match command {
        Command::Append(append) => append.reply.answer(Err(AppendError::Closed)),
        Command::Trim { reply, .. } => answer(reply, Err(DeleteRecordsError::Closed)),
        Command::Reported | Command::Adopt(_) | Command::Stop => {}
    }
}

/// Who asked may have gone away; then nobody needs the answer.
pub(super) fn answer<T>(reply: oneshot::Sender<T>, answer: T) {
    let _ = reply.send(answer);
}
