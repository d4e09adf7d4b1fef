//! The task of one followed partition: it owns the writes to its log.
//!
//! Operations on the log are answered in their order, so only the oldest is waited for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use taffrail_proto::record::BatchHeader;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::line::{Event, Followed, ToLine};
use super::pace::Pace;
use super::{Known, Progress};
use crate::context::Context;
use crate::replication::follower::{Answer, Effect, Failure, Follower, Held, Outcome, Position};
use crate::storage::{Append, Log, StorageError, Ticket};
use crate::topics::Settings;

/// Before a leader is asked again that refused, or that could not be obeyed: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));

/// See the module.
pub(super) struct Task {
    log: Arc<dyn Log>,
    context: Context,
    settings: Arc<ArcSwap<Settings>>,
    follower: Follower,
    known: Arc<Known>,
    in_flight: VecDeque<InFlight>,
    /// Asks again then.
    again: Option<Instant>,
    pause: Duration,
    /// Why it paused last.
    why: Option<String>,
    pace: Pace,
    /// There is a stream, or there will be soon: whoever asks for more is answered.
    is_connected: bool,
    /// The leader is there, and serves the partition to this replica.
    is_heard: bool,
}

/// An operation that the log has not answered, and the room that its bytes take.
struct InFlight {
    work: Work,
    _room: Option<Arc<OwnedSemaphorePermit>>,
}

enum Work {
    Asked(Ticket),
    /// Begins when it is the oldest.
    Later(BoxFuture<'static, Result<(), Failure>>),
}

impl Task {
    pub(super) fn new(
        log: Arc<dyn Log>,
        context: Context,
        settings: Arc<ArcSwap<Settings>>,
        follower: Follower,
        known: Arc<Known>,
        pace: Pace,
    ) -> Self {
        let (in_flight, pause) = (VecDeque::new(), PAUSE.0);
        Self {
            log,
            context,
            settings,
            follower,
            known,
            in_flight,
            again: None,
            pause,
            why: None,
            pace,
            is_connected: true,
            is_heard: false,
        }
    }

    /// Until told to stop; what is in flight then is waited for.
    pub(super) async fn run(
        mut self,
        followed: Followed,
        line: mpsc::UnboundedSender<ToLine>,
        mut events: mpsc::UnboundedReceiver<Event>,
        stop: CancellationToken,
    ) {
        loop {
            if let Some(position) = self.ask() {
                // A line ends with the runtime only.
                let _ = line.send(ToLine::Tell(followed, position));
            }
            let again = self.again;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                result = oldest(&mut self.in_flight) => self.settle(result),
                () = async { tokio::time::sleep_until(again.unwrap_or_else(Instant::now)).await }, if again.is_some() => {
                    self.again = None;
                    self.follower.again();
                }
                () = self.pace.turn() => {}
                Some(event) = events.recv() => self.hear(event),
            }
        }
        self.pace.give_up();
        self.is_heard = false;
        self.publish();
        let _ = line.send(ToLine::End(followed));
        while !self.in_flight.is_empty() {
            let result = oldest(&mut self.in_flight).await;
            self.settle(result);
        }
    }

    /// What is to be told now: a demand, when this replica may make one, or how far it is.
    fn ask(&mut self) -> Option<Position> {
        if !self.is_connected {
            return None;
        }
        let allowed =
            if self.follower.wants() { self.pace.allows(self.follower.is_matched(), Instant::now()) } else { None };
        match allowed {
            Some(max_bytes) => Some(self.follower.demand(max_bytes)),
            None => self.follower.report(),
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Connected => {
                self.is_connected = true;
                self.again = None;
                self.follower.again();
            }
            Event::Lost => {
                (self.is_connected, self.is_heard) = (false, false);
                // What a leader that is away does not send, others may copy.
                self.pace.give_up();
                self.publish();
            }
            Event::Answer(answer, room) => self.take(answer, room.as_ref()),
        }
    }

    fn take(&mut self, answer: Answer, room: Option<&Arc<OwnedSemaphorePermit>>) {
        let bytes = answer.answers.map(|_| answer.batches.iter().map(Bytes::len).sum::<usize>() as u64);
        self.is_heard = answer.outcome != Outcome::Refused;
        let effects = self.follower.answer(answer);
        self.pace.heard(bytes, self.follower.lag(), Instant::now());
        if effects.iter().any(|effect| matches!(effect, Effect::Append(..))) {
            (self.pause, self.why) = (PAUSE.0, None);
        }
        self.carry_out(effects, room);
        self.publish();
    }

    fn carry_out(&mut self, effects: Vec<Effect>, room: Option<&Arc<OwnedSemaphorePermit>>) {
        if effects.is_empty() {
            return;
        }
        let (durability, append_time) = (self.settings.load().durability, self.context.log_millis());
        for effect in effects {
            let work = match effect {
                Effect::Append(batch, header) => {
                    // A buffer of its own: what arrived is part of a much larger one, and batches stay in memory for a while.
                    let batch = Bytes::copy_from_slice(&batch);
                    Work::Asked(self.log.append(Append { batch, header, append_time, durability }))
                }
                Effect::Trim(start) => Work::Asked(self.log.trim(start)),
                Effect::Restart(at) => {
                    tracing::warn!(partition = ?self.log.partition(), at, "its leader has deleted what follows: begins anew");
                    Work::Asked(self.log.restart(at))
                }
                Effect::Truncate(to) => {
                    tracing::warn!(partition = ?self.log.partition(), to, "it parts from its leader there: truncates");
                    Work::Later(truncate(self.log.clone(), to).boxed())
                }
                Effect::Pause(why) => {
                    self.wait(why);
                    continue;
                }
                Effect::Fault(why) => {
                    tracing::error!(partition = ?self.log.partition(), why, "the replica has stopped");
                    self.known.fault.store(Some(Arc::new(why)));
                    self.pace.give_up();
                    continue;
                }
            };
            self.in_flight.push_back(InFlight { work, _room: room.cloned() });
        }
    }

    fn wait(&mut self, why: Option<String>) {
        if why.is_some() && why != self.why {
            tracing::warn!(partition = ?self.log.partition(), why, "cannot follow now, and goes on trying");
        }
        self.why = why;
        self.pace.give_up();
        self.again = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(PAUSE.1);
    }

    /// Takes note of the oldest operation's result, and of those that are there behind it.
    fn settle(&mut self, first: Result<(), Failure>) {
        let mut next = Some(first);
        while let Some(result) = next {
            self.in_flight.pop_front();
            let log = &self.log;
            let effects = self.follower.written(result, || Held::of(&**log));
            self.carry_out(effects, None);
            next = match self.in_flight.front_mut() {
                Some(InFlight { work: Work::Asked(ticket), .. }) => ticket.now_or_never().map(outcome),
                _ => None,
            };
        }
        self.publish();
    }

    fn publish(&self) {
        let follower = &self.follower;
        let progress = Progress {
            is_proven: follower.is_matched() && follower.fault().is_none(),
            is_heard: self.is_heard,
            log_start: follower.start(),
            high_watermark: follower.high_watermark(),
            written: follower.written_end(),
            lag: follower.lag().unwrap_or(0),
        };
        self.known.progress.send_if_modified(|known| std::mem::replace(known, progress) != progress);
    }
}

/// The result of the oldest operation; never, if there is none. Cancel safe.
async fn oldest(in_flight: &mut VecDeque<InFlight>) -> Result<(), Failure> {
    match in_flight.front_mut().map(|oldest| &mut oldest.work) {
        Some(Work::Asked(ticket)) => outcome(ticket.await),
        Some(Work::Later(work)) => work.await,
        None => std::future::pending().await,
    }
}

fn outcome(answered: Result<Result<(), StorageError>, tokio::sync::oneshot::error::RecvError>) -> Result<(), Failure> {
    answered.unwrap_or(Err(StorageError::Closed)).map_err(|error| failure(&error))
}

fn failure(error: &StorageError) -> Failure {
    let passes = matches!(
        error,
        StorageError::DiskFull { .. } | StorageError::WrongOffset { .. } | StorageError::OutOfBounds { .. }
    );
    Failure { reason: error.to_string(), lasting: !passes }
}

/// Cuts a log at `to`, or in front of the batch that contains it. Nothing is in flight.
async fn truncate(log: Arc<dyn Log>, to: i64) -> Result<(), Failure> {
    let read = log.read(to, to.saturating_add(1), 1).await;
    let damaged =
        |what: &dyn std::fmt::Display| Failure { reason: format!("what is to be cut: {what}"), lasting: true };
    let at = match read.map_err(|error| damaged(&error))?.first() {
        Some(batch) => BatchHeader::parse_prefix(batch).map_err(|error| damaged(&error))?.base_offset,
        None => to,
    };
    outcome(log.truncate(at.min(to)).await)
}
