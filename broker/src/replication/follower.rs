//! What a follower does with what its leader sends: one followed partition, for one leader epoch, as a pure machine.
//!
//! It asks, at first to prove that its log is the leader's (T1), and truncates until it is (T2). Then it hands to its log what
//! it is sent, and asks for more while that is being written, up to a bound. What it tells its leader to have is what is
//! written (H7). Whoever drives it
//!
//! - sends what [`ask`](Follower::ask) gives after each event;
//! - carries out [`Effect`]s in their order, and tells the results of those on the log in that order
//!   ([`written`](Follower::written));
//! - calls [`again`](Follower::again) when the stream is a new one, and a while after [`Effect::Pause`].
//!
//! Nothing here trusts the leader: a batch that is not the log's next, or is damaged, is not appended, and a truncation that
//! would take what is committed stops the replica (T4).

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use taffrail_crds::TopicConfig;
use taffrail_proto::record::header::verify_crc;
use taffrail_proto::record::{BatchError, BatchHeader};

#[cfg(test)]
mod tests;
mod words;

pub use words::{Answer, Effect, Failure, Held, Outcome, Position};

/// Bytes that one demand asks for.
pub const DEMAND_BYTES: u32 = 1 << 20;
/// Bytes that may be handed to the log and not be written yet while more is asked for.
pub const MAX_UNWRITTEN_BYTES: usize = 8 << 20;
/// Largest batch that is taken.
const MAX_BATCH_BYTES: usize = TopicConfig::MOST_MAX_MESSAGE_BYTES as usize + (1 << 10);
/// Most bytes in one answer: what is asked for, or one batch.
const MAX_ANSWER_BYTES: usize = MAX_BATCH_BYTES + DEMAND_BYTES as usize;

/// What is wrong with a batch that a leader sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Invalid {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("its size is {0} bytes")]
    Size(usize),
    #[error("it begins at {base}, and {next} is next")]
    Offset { base: i64, next: i64 },
    #[error("its leader epoch is {of}, and must be from {oldest} to {newest}")]
    Epoch { of: i32, oldest: i32, newest: i32 },
}

/// An operation that the log has not answered.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Append { end: i64, bytes: usize },
    Trim,
    Cut,
}

/// See the module.
#[derive(Debug)]
pub struct Follower {
    leader_epoch: i32,
    /// With all that was handed to the log.
    held: Held,
    written: i64,
    high_watermark: i64,
    leader_high_watermark: i64,
    /// The leader's log end as it was heard last.
    leader_end: i64,
    in_flight: VecDeque<Operation>,
    unwritten_bytes: usize,
    /// `next` of the demand that is not answered.
    asked: Option<i64>,
    /// `written` as the leader was told last.
    told: Option<i64>,
    /// The history up to `held.end` is the leader's.
    matched: bool,
    paused: bool,
    /// The log refused something: nothing goes on until all that is in flight has been answered.
    refused: Option<String>,
    fault: Option<String>,
}

impl Follower {
    /// Of a leader in this epoch. The high watermark is the one that this replica has known so far, as far as it
    /// [still holds](super::KnownEnd).
    pub fn new(leader_epoch: i32, high_watermark: i64, held: Held) -> Self {
        Self {
            leader_epoch,
            written: held.end,
            high_watermark: high_watermark.clamp(0, held.end),
            leader_high_watermark: 0,
            leader_end: i64::MAX,
            held,
            in_flight: VecDeque::new(),
            unwritten_bytes: 0,
            asked: None,
            told: None,
            matched: false,
            paused: false,
            refused: None,
            fault: None,
        }
    }

    /// The smaller of the leader's and its own written end (H4).
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// How far its log is written.
    pub fn written_end(&self) -> i64 {
        self.written
    }

    /// First offset that it holds.
    pub fn start(&self) -> i64 {
        self.held.start
    }

    /// What it holds was found to be the leader's.
    pub fn is_matched(&self) -> bool {
        self.matched
    }

    /// Records that it lacks of what the leader had when that was heard of last; `None`: it has not been.
    pub fn lag(&self) -> Option<i64> {
        let known = self.matched && self.leader_end < i64::MAX;
        known.then(|| self.leader_end.saturating_sub(self.held.end).max(0))
    }

    /// Why the replica has stopped.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// The stream is a new one, or a pause is over: what was asked is asked again.
    pub fn again(&mut self) {
        (self.asked, self.told, self.paused) = (None, None, false);
    }

    /// What is to be told to the leader now.
    pub fn ask(&mut self) -> Option<Position> {
        if self.wants() { Some(self.demand(DEMAND_BYTES)) } else { self.report() }
    }

    /// Whether it is to ask for more now.
    pub fn wants(&self) -> bool {
        self.may_speak() && self.asked.is_none() && self.unwritten_bytes < MAX_UNWRITTEN_BYTES
    }

    /// Asks for so many bytes. To be called when it [wants](Self::wants) more.
    pub fn demand(&mut self, max_bytes: u32) -> Position {
        self.asked = Some(self.held.end);
        self.position(max_bytes.clamp(1, DEMAND_BYTES))
    }

    /// What there is to tell while nothing more is asked for.
    pub fn report(&mut self) -> Option<Position> {
        let has_news = self.matched && self.told.is_none_or(|told| told < self.written);
        (has_news && self.may_speak()).then(|| self.position(0))
    }

    fn may_speak(&self) -> bool {
        let changing = self.refused.is_some() || matches!(self.in_flight.back(), Some(Operation::Cut));
        self.fault.is_none() && !self.paused && !changing
    }

    fn position(&mut self, max_bytes: u32) -> Position {
        self.told = Some(self.written);
        Position { next: self.held.end, last_epoch: last_epoch(&self.held), written: self.written, max_bytes }
    }

    /// Takes what the leader sent.
    pub fn answer(&mut self, answer: Answer) -> Vec<Effect> {
        let ours = answer.leader_epoch == self.leader_epoch;
        if !ours || self.fault.is_some() || self.refused.is_some() {
            return Vec::new();
        }
        if answer.outcome == Outcome::Refused {
            return self.pause(None);
        }
        let answers = answer.answers.is_some() && answer.answers == self.asked;
        if !answers {
            // Leaders tell their ends where histories match: of a demand that waits for data this is all that is heard.
            let news = answer.answers.is_none() && (self.matched || self.asked.is_some());
            self.matched |= news;
            if !news {
                return Vec::new();
            }
            self.leader_end = answer.log_end;
            return self.ends(answer.high_watermark, answer.log_start);
        }
        self.asked = None;
        self.leader_end = answer.log_end;
        match answer.outcome {
            Outcome::Matches => self.take(answer),
            Outcome::Diverges(epoch, end) => self.part(epoch, end),
            Outcome::Deleted => self.begin_anew(answer),
            Outcome::Refused => Vec::new(),
        }
    }

    /// The result of the oldest operation on the log. `held` looks at the log; it is called when nothing is in flight.
    pub fn written(&mut self, result: Result<(), Failure>, held: impl Fn() -> Held) -> Vec<Effect> {
        let Some(operation) = self.in_flight.pop_front() else { return Vec::new() };
        if let Operation::Append { bytes, .. } = operation {
            self.unwritten_bytes -= bytes;
        }
        match (result, operation) {
            (Ok(()), Operation::Append { end, .. }) => self.written = end,
            (Ok(()), Operation::Trim) => {}
            (Ok(()), Operation::Cut) => self.look(held()),
            (Err(failure), Operation::Append { .. } | Operation::Trim) if !failure.lasting => {
                self.refused.get_or_insert(failure.reason);
            }
            (Err(failure), _) => return self.stop(format!("the log takes no changes any more: {}", failure.reason)),
        }
        self.raise();
        if self.in_flight.is_empty()
            && let Some(reason) = self.refused.take()
        {
            self.look(held());
            return self.pause(Some(format!("the log refused what the leader sent: {reason}")));
        }
        Vec::new()
    }

    /// Goes on with what the log holds.
    fn look(&mut self, held: Held) {
        self.written = held.end;
        self.high_watermark = self.high_watermark.min(held.end);
        self.held = held;
    }

    /// The follower's high watermark, from the leader's and what is written.
    fn raise(&mut self) {
        if self.matched {
            self.high_watermark = self.high_watermark.max(self.leader_high_watermark.min(self.written));
        }
    }

    /// Takes batches: the next of the leader's log.
    fn take(&mut self, answer: Answer) -> Vec<Effect> {
        let Answer { batches, high_watermark, log_start, .. } = answer;
        self.matched = true;
        let was_empty = batches.is_empty();
        let (mut effects, mut bytes, mut invalid) = (Vec::new(), 0, None);
        for batch in batches {
            bytes += batch.len();
            match if bytes > MAX_ANSWER_BYTES { Err(Invalid::Size(bytes)) } else { self.check(&batch) } {
                Ok(header) => effects.push(self.place(batch, header)),
                // All that is held is deleted on the leader, and was not the leader's: its log begins with this batch, or in it.
                Err(Invalid::Offset { base, next }) if base < next && log_start >= next && base >= self.held.start => {
                    return self.cut(Effect::Restart(base));
                }
                // It was cut within a batch of another leader's, and that cannot be taken back.
                Err(Invalid::Offset { base, next }) if base < next && self.held.start == next => {
                    return self.unreachable(base);
                }
                Err(why) => {
                    invalid = Some(format!("a batch of the leader is not taken: {why}"));
                    break;
                }
            }
        }
        effects.extend(self.ends(high_watermark, log_start));
        // Also where nothing was there for what was asked: not at once again.
        if invalid.is_some() || was_empty {
            effects.extend(self.pause(invalid));
        }
        effects
    }

    /// A batch as it must be to follow on what is held (E4, R5).
    fn check(&self, batch: &[u8]) -> Result<BatchHeader, Invalid> {
        let header = BatchHeader::parse(batch)?;
        verify_crc(batch)?;
        let (next, size) = (self.held.end, header.size_in_bytes());
        let oldest = last_epoch(&self.held).unwrap_or(0);
        if size != batch.len() || size > MAX_BATCH_BYTES {
            return Err(Invalid::Size(batch.len()));
        }
        if header.base_offset != next || header.next_offset() == i64::MAX {
            return Err(Invalid::Offset { base: header.base_offset, next });
        }
        if header.leader_epoch < oldest || header.leader_epoch > self.leader_epoch {
            return Err(Invalid::Epoch { of: header.leader_epoch, oldest, newest: self.leader_epoch });
        }
        Ok(header)
    }

    fn place(&mut self, batch: Bytes, header: BatchHeader) -> Effect {
        let (end, bytes) = (header.next_offset(), batch.len());
        Arc::make_mut(&mut self.held.epochs).appended(header.leader_epoch, header.base_offset, end);
        self.held.end = end;
        self.unwritten_bytes += bytes;
        self.in_flight.push_back(Operation::Append { end, bytes });
        Effect::Append(batch, header)
    }

    /// Takes note of the leader's ends; its log's start is this one's, as far as it goes (Q1).
    fn ends(&mut self, high_watermark: i64, log_start: i64) -> Vec<Effect> {
        self.leader_high_watermark = self.leader_high_watermark.max(high_watermark);
        self.raise();
        let start = log_start.min(self.held.end);
        if start <= self.held.start {
            return Vec::new();
        }
        Arc::make_mut(&mut self.held.epochs).trim(start);
        self.held.start = start;
        self.in_flight.push_back(Operation::Trim);
        vec![Effect::Trim(start)]
    }

    /// The histories part: of what is held, no more than up to the smaller of both ends of the leader's epoch can be shared
    /// (T2). Without such an epoch here nothing is.
    fn part(&mut self, epoch: Option<i32>, end: i64) -> Vec<Effect> {
        let Held { start, end: own_end, .. } = self.held;
        let shared = match epoch {
            Some(epoch) => self.held.epochs.end_of(epoch, own_end).map_or(start, |own| own.end.min(end)),
            // Of what lies before the leader's first epoch nothing is known there, and nothing has to be: it has been deleted.
            // Here it goes when the log's start follows. To go back behind it would take back what is committed.
            None => end,
        };
        let to = shared.max(start);
        if shared < self.high_watermark {
            return self.stop(format!(
                "the leader of epoch {} parts from this replica at offset {shared}, but records up to {} are committed: one \
                 of the two logs is not what it was acknowledged as. Compare the replicas before any of them is removed",
                self.leader_epoch, self.high_watermark
            ));
        }
        if to >= own_end {
            return self.unreachable(end);
        }
        self.cut(if to <= start { Effect::Restart(start) } else { Effect::Truncate(to) })
    }

    /// All that is held is deleted there, and what is wanted may be: an empty log that begins with the leader's first batch
    /// takes that. What is held may never have been the leader's, unless it is committed.
    fn begin_anew(&mut self, answer: Answer) -> Vec<Effect> {
        let Held { start, end, .. } = self.held;
        let first = answer.batches.first().and_then(|batch| BatchHeader::parse_prefix(batch).ok());
        let at = first.map_or(answer.log_start, |header| header.base_offset);
        if answer.log_start < end || at > answer.log_start {
            let why = format!("the leader, whose log begins at {}, says that {end} is deleted", answer.log_start);
            return self.pause(Some(why));
        }
        if at < start {
            return self.unreachable(at);
        }
        if (start, end) == (at, at) {
            return self.take(answer);
        }
        if at == end && self.high_watermark >= end {
            // What is known of producers from it stays.
            return self.ends(answer.high_watermark, answer.log_start);
        }
        self.cut(Effect::Restart(at))
    }

    /// Nothing that can be done to the log makes it the leader's.
    fn unreachable(&mut self, at: i64) -> Vec<Effect> {
        let Held { start, end, .. } = self.held;
        self.stop(format!(
            "the leader's log parts from this replica at {at}, and of what that holds, {start} to {end}, nothing fits: \
             remove this replica's log so that it is copied anew"
        ))
    }

    fn cut(&mut self, effect: Effect) -> Vec<Effect> {
        self.matched = false;
        self.in_flight.push_back(Operation::Cut);
        vec![effect]
    }

    fn pause(&mut self, why: Option<String>) -> Vec<Effect> {
        self.asked = None;
        self.paused = true;
        vec![Effect::Pause(why)]
    }

    fn stop(&mut self, reason: String) -> Vec<Effect> {
        self.fault = Some(reason.clone());
        vec![Effect::Fault(reason)]
    }
}

fn last_epoch(held: &Held) -> Option<i32> {
    if held.end > held.start { held.epochs.at(held.end - 1) } else { None }
}
