//! A member's place in its group as a state machine: when to join, resume, send a heartbeat, give up.
//!
//! Pure: time is passed in. The application's side sees it as a [`View`].
//!
//! What holds: a member that was not heard of for its session timeout hands out nothing until the group has confirmed it;
//! after a loss it joins again only when the application was told of the loss; an application that is stuck loses its
//! partitions, for heartbeats show that the process lives, not that it works; a partition that the application was told to
//! take over counts as its own until it says that it has let go of it, so that no heartbeat gives it away under its hands.

use std::collections::BTreeSet;
use std::time::Duration;

use taffrail_proto::v1::session_response::Frame;
use taffrail_proto::v1::{Reason, SessionJoin};
use tokio::time::Instant;

use super::rebalance::{TopicPartition, from_wire, to_wire};
use crate::error::{Error, ErrorKind};

/// Until the group says otherwise.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// How long the group may take to answer a join.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How much longer than a session an instance id may be in use by a process that is gone.
const INSTANCE_GRACE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Wants to be in the group, and has no stream, or one without an answer yet.
    Away,
    /// In the group.
    In,
    /// Was removed; waits until the application knows.
    Lost,
    /// Cannot go on.
    Failed,
}

/// What the application's side sees.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// For commits.
    pub(super) member_id: String,
    /// For commits.
    pub(super) epoch: i32,
    /// Rises when the member is removed: what was owned before is lost.
    pub(super) era: u64,
    /// What it should own; `None`: not said yet.
    pub(super) target: Option<BTreeSet<TopicPartition>>,
    /// Until when others cannot own what it does.
    pub(super) alive_until: Instant,
    /// Why it is not in the group, for now.
    pub(super) waits_for: Option<Error>,
    /// Why it cannot go on.
    pub(super) failed: Option<Error>,
}

/// What to do about time that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing yet.
    Wait,
    /// Send a heartbeat.
    Heartbeat,
    /// Open the stream again: the group did not answer, or the process slept for longer than its session and must ask
    /// whether it is still in.
    Reopen,
    /// The application is stuck: leave.
    Leave,
}

/// What to do about a stream that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Connect again after a wait.
    Again,
    /// Connect again when the application knows of the loss.
    WhenToldOfLoss,
    /// Not at all.
    Never,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Membership {
    /// Without epoch and partitions.
    join: SessionJoin,
    max_processing: Duration,
    phase: Phase,
    epoch: i32,
    era: u64,
    target: Option<BTreeSet<TopicPartition>>,
    /// All that the application owns or may be about to take over: the group must not give it to others yet.
    owned: BTreeSet<TopicPartition>,
    heartbeat: Duration,
    session: Duration,
    /// When the stream was opened.
    asked: Instant,
    /// Last sign of life.
    beat: Instant,
    /// When it was told first that another process has its instance id.
    in_use_since: Option<Instant>,
    waits_for: Option<Error>,
    failed: Option<Error>,
}

impl Membership {
    pub(super) fn new(join: SessionJoin, session: Duration, max_processing: Duration, now: Instant) -> Self {
        Self {
            join,
            max_processing,
            phase: Phase::Away,
            epoch: 0,
            era: 0,
            target: None,
            owned: BTreeSet::new(),
            heartbeat: HEARTBEAT.min(session / 3),
            session,
            asked: now,
            beat: now,
            in_use_since: None,
            waits_for: None,
            failed: None,
        }
    }

    pub(super) fn view(&self) -> View {
        View {
            member_id: self.join.member_id.clone(),
            epoch: self.epoch,
            era: self.era,
            target: self.target.clone(),
            alive_until: self.beat + self.session,
            waits_for: self.waits_for.clone(),
            failed: self.failed.clone(),
        }
    }

    /// Waits until the application knows that its partitions are lost.
    pub(super) fn is_lost(&self) -> bool {
        self.phase == Phase::Lost
    }

    pub(super) fn is_static(&self) -> bool {
        !self.join.instance_id.is_empty()
    }

    pub(super) fn epoch(&self) -> i32 {
        self.epoch
    }

    pub(super) fn owned(&self) -> &BTreeSet<TopicPartition> {
        &self.owned
    }

    /// The first frame of a stream.
    pub(super) fn joining(&mut self, now: Instant) -> SessionJoin {
        self.asked = now;
        let owned = if self.epoch > 0 { to_wire(&self.owned) } else { vec![] };
        SessionJoin { member_epoch: self.epoch, owned, ..self.join.clone() }
    }

    /// The group has answered. Answers true if the stream is to be left and opened again.
    pub(super) fn on_frame(&mut self, frame: Frame) -> bool {
        match frame {
            Frame::Joined(joined) => {
                if !joined.member_id.is_empty() {
                    self.join.member_id = joined.member_id;
                }
                self.epoch = joined.member_epoch;
                self.set_times(joined.heartbeat_interval_ms, joined.session_timeout_ms);
                self.confirmed();
            }
            Frame::Assignment(assignment) => {
                self.epoch = assignment.member_epoch;
                let target: BTreeSet<_> = from_wire(assignment.partitions).collect();
                self.owned.extend(target.iter().cloned());
                self.target = Some(target);
                self.confirmed();
            }
            Frame::Drain(_) => return true,
        }
        false
    }

    fn confirmed(&mut self) {
        self.phase = Phase::In;
        self.in_use_since = None;
        self.waits_for = None;
        // What it answers is no older than the question.
        self.beat = self.beat.max(self.asked);
    }

    fn set_times(&mut self, heartbeat_ms: u32, session_ms: u32) {
        if session_ms > 0 {
            self.session = Duration::from_millis(session_ms.into());
        }
        if heartbeat_ms > 0 {
            self.heartbeat = Duration::from_millis(heartbeat_ms.into());
        }
    }

    /// A heartbeat was sent.
    pub(super) fn sent(&mut self, now: Instant) {
        self.beat = now;
    }

    /// The application owns this, having done what it was told with `epoch`. If that was not the latest, it may still take
    /// over what it was told before, so nothing is given up.
    pub(super) fn set_owned(&mut self, owned: BTreeSet<TopicPartition>, epoch: i32) {
        if epoch == self.epoch {
            self.owned = self.target.clone().unwrap_or_default();
        }
        self.owned.extend(owned);
    }

    /// When [`on_time`](Self::on_time) has something to say; `busy` is since when the application works on records.
    pub(super) fn wakes_at(&self, busy: Option<Instant>) -> Instant {
        if self.phase != Phase::In {
            return self.asked + JOIN_TIMEOUT;
        }
        let beat = self.beat + self.heartbeat;
        busy.map_or(beat, |since| beat.min(since + self.max_processing))
    }

    /// What is due on an open stream.
    pub(super) fn on_time(&self, now: Instant, busy: Option<Instant>) -> Step {
        if self.phase != Phase::In {
            return if now >= self.asked + JOIN_TIMEOUT { Step::Reopen } else { Step::Wait };
        }
        if busy.is_some_and(|since| now >= since + self.max_processing) {
            return Step::Leave;
        }
        if now >= self.beat + self.session {
            return Step::Reopen;
        }
        if now >= self.beat + self.heartbeat { Step::Heartbeat } else { Step::Wait }
    }

    /// The stream is over, or there was none.
    pub(super) fn on_error(&mut self, error: &Error, now: Instant) -> Ended {
        match error.reason() {
            Reason::MemberFenced | Reason::UnknownMember | Reason::UnknownGroup | Reason::StaleMemberEpoch => {
                self.lose();
                Ended::WhenToldOfLoss
            }
            // Its predecessor may have died: its session runs out.
            Reason::InstanceInUse if self.in_use_for_long(now) => self.fail(error),
            Reason::InstanceInUse => self.away(error),
            _ if error.worth_a_retry() => self.away(error),
            _ => self.fail(error),
        }
    }

    fn fail(&mut self, error: &Error) -> Ended {
        self.phase = Phase::Failed;
        self.failed = Some(error.context("group session"));
        Ended::Never
    }

    fn away(&mut self, error: &Error) -> Ended {
        self.waits_for = Some(error.clone());
        self.phase = Phase::Away;
        Ended::Again
    }

    fn in_use_for_long(&mut self, now: Instant) -> bool {
        let since = *self.in_use_since.get_or_insert(now);
        now >= since + self.session + INSTANCE_GRACE
    }

    /// It is in the group no more: another stays in its place.
    pub(super) fn lose(&mut self) {
        self.phase = Phase::Lost;
        self.era += 1;
        self.epoch = 0;
        self.target = None;
        self.owned.clear();
    }

    /// The application knows of the loss: it may join again.
    pub(super) fn told_of_loss(&mut self) {
        if self.phase == Phase::Lost {
            self.phase = Phase::Away;
            self.owned.clear();
        }
    }
}

/// The member's task has ended.
pub(super) fn task_gone() -> Error {
    Error::local(ErrorKind::Closed, "the group consumer's task has ended: make a new consumer")
}

#[cfg(test)]
mod tests;
