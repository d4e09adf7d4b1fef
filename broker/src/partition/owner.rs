//! The task that owns a partition's writes: takes commands in bulk, hands batches to the log, answers when the log has
//! them. All decisions are [`State`]'s and [`PendingAcks`]'; nothing here is shared but the published snapshot.
//!
//! Operations on the log resolve in the order in which they were made, so only the oldest is waited for; when it is done,
//! all that are done with it are settled at once: one wake, one snapshot, for many batches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use taffrail_proto::record::TimestampType;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::command::{AppendCommand, AppendReply, Command, TrimReply, answer, refuse_closed};
use super::in_flight::{Effect, Failure, InFlight, done, ends_writing, oldest};
use super::local::Shared;
use super::pending::PendingAcks;
use super::state::{Decision, State};
use super::{Acks, AppendError, Appended, DeleteRecordsError};
use crate::context::Context;
use crate::storage::{Append, Log, StorageError};
use crate::topics::Settings;

/// Commands taken at once.
const COMMANDS_AT_ONCE: usize = 256;
/// How often a leader looks whether its followers keep up.
const TICK: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Owner {
    log: Arc<dyn Log>,
    context: Context,
    settings: Arc<ArcSwap<Settings>>,
    shared: Arc<Shared>,
    state: State,
    acks: PendingAcks<AppendReply, Appended>,
    in_flight: VecDeque<InFlight>,
    /// Where there are followers.
    ticks: Option<Interval>,
    /// Partition epoch of the change that is asked for.
    proposed: Option<i32>,
    /// An append failed: nothing new is taken until all behind it have failed too.
    rolling_back: bool,
    /// Storage takes no writes any more: what comes now is refused for certain, and not of unknown outcome.
    storage_failed: Option<StorageError>,
}

impl Owner {
    pub(super) fn new(shared: Arc<Shared>, context: Context, settings: Arc<ArcSwap<Settings>>, state: State) -> Self {
        Self {
            log: shared.log.clone(),
            context,
            settings,
            shared,
            state,
            acks: PendingAcks::new(),
            in_flight: VecDeque::new(),
            ticks: None,
            proposed: None,
            rolling_back: false,
            storage_failed: None,
        }
    }

    /// Until told to stop, or all handles are gone.
    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut taken = Vec::new();
        self.schedule();
        loop {
            tokio::select! {
                biased;
                () = next(&mut self.ticks) => self.follow(State::tick),
                result = oldest(&mut self.in_flight) => self.settle(result),
                count = commands.recv_many(&mut taken, COMMANDS_AT_ONCE), if !self.rolling_back => {
                    if count == 0 || self.take(&mut taken) {
                        break;
                    }
                }
            }
        }
        commands.close();
        while let Ok(command) = commands.try_recv() {
            taken.push(command);
        }
        taken.drain(..).for_each(refuse_closed);
        while !self.in_flight.is_empty() {
            let result = oldest(&mut self.in_flight).await;
            self.settle(result);
        }
        // The next leader may have what others here do not know of.
        self.acks.fail(i64::MIN, |reply| reply.answer(Err(AppendError::ClosedInFlight)));
    }

    /// Does what was asked. True: one of them was to stop; those behind it are still in `taken`.
    fn take(&mut self, taken: &mut Vec<Command>) -> bool {
        let (settings, append_time) = (self.settings.load_full(), self.context.log_millis());
        let mut commands = taken.drain(..);
        while let Some(command) = commands.next() {
            match command {
                Command::Append(append) => self.append(*append, &settings, append_time),
                Command::Trim { to, reply } => self.trim(to, reply),
                Command::Reported => {
                    let shared = Arc::clone(&self.shared);
                    self.follow(|state, now| shared.reports(|by, written| state.fetched(by, written, now)));
                }
                Command::Adopt(view) => {
                    self.follow(|state, now| state.adopt(*view, now));
                    self.schedule();
                }
                Command::Stop => {
                    commands.for_each(refuse_closed);
                    return true;
                }
            }
        }
        false
    }

    /// Lets the state take note of what was heard of its replicas; then tells those whom it concerns.
    fn follow(&mut self, take: impl FnOnce(&mut State, Duration)) {
        let (before, now) = (self.state.high_watermark(), self.now());
        take(&mut self.state, now);
        if self.state.high_watermark() > before {
            self.release();
        }
        self.propose();
    }

    /// Time since boot, where it matters.
    fn now(&self) -> Duration {
        self.shared.replication.as_ref().map_or(Duration::ZERO, |_| self.context.clock().since_boot())
    }

    fn schedule(&mut self) {
        if !self.state.has_followers() {
            self.ticks = None;
        } else if self.ticks.is_none() {
            let mut ticks = tokio::time::interval_at(Instant::now() + TICK, TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            self.ticks = Some(ticks);
        }
    }

    /// Asks for the change of the in-sync replicas that the state wants now.
    fn propose(&mut self) {
        let Some(replication) = &self.shared.replication else { return };
        let proposal = self.state.proposal();
        let proposed = proposal.map(|proposal| proposal.partition_epoch);
        // There is one at most for each partition epoch.
        if proposed != self.proposed {
            replication.proposals.set(self.log.partition(), proposal.cloned());
            self.proposed = proposed;
        }
    }

    fn append(&mut self, command: AppendCommand, settings: &Settings, append_time: i64) {
        let decision = match &self.storage_failed {
            _ if !command.reply.may_go() => Err(AppendError::PrecedingRefused),
            Some(error) => Err(AppendError::Refused(error.clone())),
            None => self.state.decide(command.batch.header(), command.acks, command.leader_epoch),
        };
        match decision {
            Err(error) => command.reply.answer(Err(error)),
            Ok(Decision::Duplicate { base_offset, end }) => {
                let appended = Appended { base_offset, duplicate: true, ..self.appended(settings, None) };
                self.answer_at(end, command.acks, command.reply, appended);
            }
            Ok(Decision::Append { base_offset }) => self.place(command, base_offset, settings, append_time),
        }
    }

    /// Hands a batch to the log.
    fn place(&mut self, command: AppendCommand, base_offset: i64, settings: &Settings, append_time: i64) {
        let by_broker = settings.timestamp_type == TimestampType::LogAppendTime;
        let log_append_time = by_broker.then(|| self.context.wall_millis());
        let (batch, header) = command.batch.place(base_offset, self.state.leader_epoch(), log_append_time);
        let end = header.next_offset();
        let ticket = self.log.append(Append { batch, header, append_time, durability: settings.durability });
        self.state.placed(&header, append_time);
        let unanswered = if command.acks == Acks::None { command.reply.order.clone() } else { None };
        let effect = Effect::Append { end, _permit: command.permit, unanswered };
        self.in_flight.push_back(InFlight { ticket, effect });
        let appended = Appended { base_offset: Some(base_offset), ..self.appended(settings, log_append_time) };
        self.answer_at(end, command.acks, command.reply, appended);
    }

    fn appended(&self, settings: &Settings, log_append_time: Option<i64>) -> Appended {
        Appended {
            base_offset: None,
            durability: settings.durability,
            replicas: 1,
            leader_epoch: self.state.leader_epoch(),
            log_append_time,
            log_start_offset: self.state.log_start(),
            duplicate: false,
        }
    }

    /// Answers when the log has what lies before `end`, or at once where that is so or nobody wants to wait.
    fn answer_at(&mut self, end: i64, acks: Acks, reply: AppendReply, appended: Appended) {
        let reached = match acks {
            Acks::None => {
                return reply.answer(Ok(Appended { base_offset: None, replicas: 0, ..appended }));
            }
            Acks::Leader => self.state.log_end(),
            Acks::All => self.state.high_watermark(),
        };
        if end <= reached {
            reply.answer(Ok(acknowledged(appended, acks, self.state.in_sync())));
        } else {
            self.acks.push(acks, end, reply, appended);
        }
    }

    /// Raises the log's start, at most to the high watermark (Q3).
    fn trim(&mut self, to: i64, reply: TrimReply) {
        let high_watermark = self.state.high_watermark();
        if to < 0 || to > high_watermark {
            return answer(reply, Err(DeleteRecordsError::OutOfRange { offset: to, high_watermark }));
        }
        if to <= self.state.log_start() {
            return answer(reply, Ok(self.state.log_start()));
        }
        self.in_flight.push_back(InFlight { ticket: self.log.trim(to), effect: Effect::Trim { to, reply } });
    }

    /// Takes note of the oldest operation's result, and of those that are there behind it.
    fn settle(&mut self, first: Result<(), Failure>) {
        let now = self.now();
        let mut next = Some(first);
        while let Some(result) = next {
            let InFlight { effect, .. } = self.in_flight.pop_front().expect("only what is in flight is settled");
            match (effect, result) {
                (Effect::Append { end, .. }, Ok(())) => self.state.written(end, now),
                (Effect::Append { unanswered, .. }, Err(failure)) => {
                    if let Some(order) = unanswered {
                        order.end();
                    }
                    self.append_failed(&failure);
                }
                (Effect::Trim { to, reply }, Ok(())) => {
                    self.state.trimmed(to);
                    answer(reply, Ok(self.state.log_start()));
                }
                (Effect::Trim { reply, .. }, Err(failure)) => answer(reply, Err(failure.into())),
            }
            next = self.in_flight.front_mut().and_then(|oldest| done(oldest.ticket.try_recv()));
        }
        if self.rolling_back && self.in_flight.is_empty() {
            self.rolling_back = false;
            self.state.roll_back(self.log.extent().end, self.log.producers(), now);
        }
        self.release();
        self.propose();
    }

    /// Answers what is due.
    fn release(&mut self) {
        // Published first: who is told of an append can read it (R4).
        self.shared.publish(self.state.snapshot(false));
        let (log_end, high_watermark) = (self.state.log_end(), self.state.high_watermark());
        let in_sync = self.state.in_sync();
        let give = |acks, reply: AppendReply, appended| reply.answer(Ok(acknowledged(appended, acks, in_sync)));
        self.acks.release(log_end, high_watermark, give);
    }

    /// The log refused a batch; it refuses those behind it too, for they do not begin at its end (R5).
    fn append_failed(&mut self, failure: &Failure) {
        let first = !std::mem::replace(&mut self.rolling_back, true);
        if let Failure::Storage(error) = failure
            && first
            && ends_writing(error)
        {
            self.storage_failed = Some(error.clone());
        }
        self.acks.fail(self.state.log_end(), |reply| reply.answer(Err(failure.clone().into())));
    }
}

impl Drop for Owner {
    /// However the task ends, readers and waiters get to know. What it asked for stands until the leader epoch is over: it may
    /// have been heard.
    fn drop(&mut self) {
        self.shared.publish(self.state.snapshot(true));
    }
}

/// On how many replicas an append is when it is answered (D1): on those in sync then, if that was asked for.
fn acknowledged(appended: Appended, acks: Acks, in_sync: i32) -> Appended {
    Appended { replicas: if acks == Acks::All { in_sync } else { 1 }, ..appended }
}

/// The next tick; never, without ticks. Cancel safe.
async fn next(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => drop(ticks.tick().await),
        None => std::future::pending().await,
    }
}
