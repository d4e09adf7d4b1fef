//! What a follower hears and says.

use std::sync::Arc;

use bytes::Bytes;
use taffrail_proto::record::BatchHeader;

use crate::storage::leader_epochs::LeaderEpochs;

/// What a log holds when nothing is in flight to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// First offset.
    pub start: i64,
    /// Next offset.
    pub end: i64,
    /// Its history.
    pub epochs: Arc<LeaderEpochs>,
}

/// Where a follower stands, told to its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// First offset that is wanted.
    pub next: i64,
    /// Leader epoch of the record before that.
    pub last_epoch: Option<i32>,
    /// Its log is written up to here.
    pub written: i64,
    /// Bytes wanted at most; 0: nothing is wanted, this only reports.
    pub max_bytes: u32,
}

/// What a leader sent.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Under which it leads.
    pub leader_epoch: i32,
    /// Whole batches, if it answers.
    pub batches: Vec<Bytes>,
    /// Its high watermark.
    pub high_watermark: i64,
    /// Its log start.
    pub log_start: i64,
    /// Its log end when it looked for batches.
    pub log_end: i64,
    /// `next` of the demand that this answers; `None`: it only tells the ends.
    pub answers: Option<i64>,
    /// What the answer is.
    pub outcome: Outcome,
}

/// How a leader answers a position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// The histories are the same up to there.
    #[default]
    Matches,
    /// They part: the largest epoch of the leader that is not above the follower's, if there is one, and its end there; or
    /// where the leader's log begins to know.
    Diverges(Option<i32>, i64),
    /// What is wanted has been deleted, or all that is before it, with the epoch that the follower has there: the batches are
    /// those from the log's start on. The first may begin below that.
    Deleted,
    /// It does not serve the partition to this follower now.
    Refused,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Append this batch.
    Append(Bytes, BatchHeader),
    /// Raise the log's start.
    Trim(i64),
    /// Cut the log here, or in front of the batch that contains this offset: that is then not the leader's.
    Truncate(i64),
    /// Empty the log, which then begins here.
    Restart(i64),
    /// Say why, if that is given, wait for a moment, and call [`Follower::again`].
    Pause(Option<String>),
    /// The replica stops: see [`Follower::fault`].
    Fault(String),
}

/// Why the log did not do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In words.
    pub reason: String,
    /// It will not do anything any more.
    pub lasting: bool,
}
