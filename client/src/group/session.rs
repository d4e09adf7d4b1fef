//! The task that keeps a member in its group: opens the stream, sends heartbeats, opens it again after faults.
//!
//! It is apart from the application's task, so that slow processing does not look like death, up to the bound that
//! [`Membership`] keeps.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use taffrail_proto::v1::groups_client::GroupsClient;
use taffrail_proto::v1::session_request::Frame as RequestFrame;
use taffrail_proto::v1::{SessionHeartbeat, SessionLeave, SessionRequest, SessionResponse};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;

use super::membership::{Ended, Membership, Step, View};
use super::rebalance::{TopicPartition, to_wire};
use crate::client::{Shared, Turn};
use crate::consumer::ended;
use crate::error::{Error, ErrorKind, Result};
use crate::retry::Backoff;

/// How long the broker may take to accept the stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the broker may take to confirm that the member has left.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the application's side tells the task.
#[derive(Debug)]
pub(super) enum Command {
    /// It owns this now, having done what it was told with this epoch: the group waits for it.
    Owned(BTreeSet<TopicPartition>, i32),
    /// The application knows that its partitions are lost.
    ToldOfLoss,
    /// It goes; told when the group knows.
    Leave(oneshot::Sender<()>),
    /// It cannot go on for now: it leaves, and joins again when it is told to, as after a loss. Told when the group knows.
    StepDown(oneshot::Sender<()>),
}

/// Since when the application works on records that it was given; `None`: it waits for more.
pub(super) type Busy = Arc<Mutex<Option<Instant>>>;

/// The application's end of the task.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) view: watch::Receiver<View>,
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) busy: Busy,
}

impl Session {
    pub(super) fn start(shared: Arc<Shared>, membership: Membership) -> Self {
        let (view, seen) = watch::channel(membership.view());
        let (commands, received) = mpsc::unbounded_channel();
        let busy = Busy::default();
        let task = Task { shared, membership, view, commands: received, busy: busy.clone(), turn: Turn::default() };
        tokio::spawn(task.run());
        Self { view: seen, commands, busy }
    }
}

struct Task {
    shared: Arc<Shared>,
    membership: Membership,
    view: watch::Sender<View>,
    commands: mpsc::UnboundedReceiver<Command>,
    busy: Busy,
    /// Whose turn the stream is.
    turn: Turn,
}

/// The application wants to leave; `None`: it has dropped its consumer.
type Leaving = Option<oneshot::Sender<()>>;

/// How a stream came to its end.
enum Conversation {
    /// The application leaves, and the group knows.
    Left,
    /// The application is stuck or cannot go on, and the group was told that the member leaves.
    Out(Leaving),
    /// To be opened again at once.
    Again,
}

impl Task {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let failed = match self.converse(&mut backoff).await {
                Ok(Conversation::Left) => return,
                Ok(Conversation::Again) => ended("the broker is about to stop"),
                Ok(Conversation::Out(leaving)) => {
                    self.step_down(leaving);
                    ended("the member has left its group")
                }
                Err(error) => error,
            };
            let next = if self.membership.is_lost() {
                Ended::WhenToldOfLoss
            } else {
                self.membership.on_error(&failed, Instant::now())
            };
            tracing::debug!(error = %failed, ?next, "group session ended");
            self.show();
            // Another broker may know more.
            if failed.kind() == ErrorKind::Unavailable && failed.detail().is_none() {
                self.shared.next_endpoint(self.turn);
            }
            let wait = backoff.next_after(failed.retry_after(), rand::random());
            if next == Ended::Never || self.idle(Instant::now() + wait).await.is_err() {
                return;
            }
        }
    }

    /// It is in the group no more, by its own will.
    fn step_down(&mut self, leaving: Leaving) {
        self.membership.lose();
        self.show();
        if let Some(left) = leaving {
            let _ = left.send(());
        }
    }

    fn show(&self) {
        self.view.send_replace(self.membership.view());
    }

    /// Without a stream, until there may be one again. Fails when the application has left meanwhile.
    async fn idle(&mut self, until: Instant) -> Result<(), Leaving> {
        loop {
            let command = tokio::select! {
                command = self.commands.recv() => command,
                () = sleep_until(until), if !self.membership.is_lost() => return Ok(()),
            };
            match command {
                None => return Err(None),
                Some(Command::Leave(left)) => return Err(Some(left)),
                Some(Command::Owned(owned, epoch)) => self.membership.set_owned(owned, epoch),
                Some(Command::ToldOfLoss) => self.membership.told_of_loss(),
                Some(Command::StepDown(left)) => self.step_down(Some(left)),
            }
        }
    }

    /// One stream from its start to its end.
    async fn converse(&mut self, backoff: &mut Backoff) -> Result<Conversation> {
        let (frames, queued) = mpsc::unbounded_channel();
        send(&frames, RequestFrame::Join(self.membership.joining(Instant::now())));
        let (turn, place) = self.shared.control_place()?;
        self.turn = turn;
        let mut client = GroupsClient::new(place.connection.clone());
        let opening = timeout(OPEN_TIMEOUT, client.session(UnboundedReceiverStream::new(queued))).await;
        let mut answers = opening.map_err(|_| ended("the broker did not open the session in time"))??.into_inner();
        loop {
            let busy = *self.busy.lock();
            tokio::select! {
                answer = answers.message() => {
                    let Some(answer) = answer? else { return Err(ended("the broker ended the session")) };
                    backoff.reset();
                    if answer.frame.is_some_and(|frame| self.membership.on_frame(frame)) {
                        return Ok(Conversation::Again);
                    }
                    self.show();
                }
                command = self.commands.recv() => match command {
                    Some(Command::Owned(owned, epoch)) => {
                        self.membership.set_owned(owned, epoch);
                        self.heartbeat(&frames);
                    }
                    Some(Command::ToldOfLoss) => {}
                    Some(Command::StepDown(left)) => {
                        self.leave(frames, answers, false).await;
                        return Ok(Conversation::Out(Some(left)));
                    }
                    Some(Command::Leave(left)) => {
                        self.leave(frames, answers, self.membership.is_static()).await;
                        let _ = left.send(());
                        return Ok(Conversation::Left);
                    }
                    None => {
                        self.leave(frames, answers, self.membership.is_static()).await;
                        return Ok(Conversation::Left);
                    }
                },
                () = sleep_until(self.membership.wakes_at(busy)) => {
                    // The application may have come back while this slept.
                    let busy = *self.busy.lock();
                    match self.membership.on_time(Instant::now(), busy) {
                        Step::Wait => {}
                        Step::Heartbeat => self.heartbeat(&frames),
                        Step::Reopen => return Ok(Conversation::Again),
                        Step::Leave => {
                            tracing::warn!("no records were asked for in too long a time: the member leaves its group");
                            self.leave(frames, answers, self.membership.is_static()).await;
                            return Ok(Conversation::Out(None));
                        }
                    }
                }
            }
        }
    }

    fn heartbeat(&mut self, frames: &mpsc::UnboundedSender<SessionRequest>) {
        let owned = to_wire(self.membership.owned());
        let heartbeat = SessionHeartbeat { owned, member_epoch: self.membership.epoch() };
        send(frames, RequestFrame::Heartbeat(heartbeat));
        self.membership.sent(Instant::now());
        self.show();
    }

    /// Tells the group, and waits until it has heard.
    async fn leave(
        &self,
        frames: mpsc::UnboundedSender<SessionRequest>,
        mut answers: Streaming<SessionResponse>,
        returning: bool,
    ) {
        send(&frames, RequestFrame::Leave(SessionLeave { returning }));
        drop(frames);
        let heard = async { while let Ok(Some(_)) = answers.message().await {} };
        if timeout(LEAVE_TIMEOUT, heard).await.is_err() {
            tracing::debug!("the broker did not confirm in time that the member has left");
        }
    }
}

fn send(frames: &mpsc::UnboundedSender<SessionRequest>, frame: RequestFrame) {
    // A stream that is gone says so where its answers are read.
    let _ = frames.send(SessionRequest { frame: Some(frame) });
}

/// The group has removed the member.
pub(super) fn fenced() -> Error {
    Error::local(
        ErrorKind::MemberFenced,
        "the member was removed from its group: nothing was committed; call next() to join again",
    )
}

#[cfg(test)]
mod tests;
