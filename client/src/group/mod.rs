//! Members of consumer groups: several consumers share topics, and each partition belongs to one of them at a time.
//!
//! - [`builder`], [`records`], [`rebalance`]: what the application sees;
//! - [`state`]: what is owned, handed out and committed, as a state machine;
//! - [`membership`]: the member's place in its group, as a state machine; [`session`]: the task around it;
//! - [`commit`]: what is committed when; [`reconcile`]: takes partitions over and lets them go;
//! - [`offsets`]: the calls for committed offsets; [`admin`]: groups from outside;
//! - this file: the shell, which runs in the application's own calls.
//!
//! Records come by the same streams as without a group ([`crate::consumer`]): raw batches, straight from the leaders. Only
//! membership goes by `Groups.Session`.

mod admin;
mod builder;
mod commit;
mod membership;
mod offsets;
mod rebalance;
mod reconcile;
mod records;
mod session;
mod state;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use taffrail_proto::v1::Reason;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use self::commit::place;
use self::membership::{View, task_gone};
use self::session::{Command, Session};
use self::state::GroupState as State;
use crate::client::Shared;
use crate::consumer::{Consumer, Position, RecordBatch, ResetPolicy};
use crate::error::{Error, ErrorKind, RequestOutcome, Result};
use crate::metrics::ConsumerMetrics;

pub use self::admin::{
    CommittedOffset, GroupDescription, GroupMember, GroupPartition, GroupState, GroupSummary, OffsetChange,
    OffsetReset, ResetTo,
};
pub use self::builder::{Assignor, CommitMode, GroupConsumerBuilder};
pub use self::rebalance::{RebalanceListener, RevokeCommit, TopicPartition};
pub use self::records::Records;
pub use taffrail_proto::v1::OffsetCommit as GroupOffset;

/// How long a close waits for the group to hear of it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// How a member reads.
#[derive(Clone, Copy, Debug)]
struct Settings {
    mode: CommitMode,
    reset: ResetPolicy,
    follow: bool,
    max_bytes: usize,
}

/// A member of a consumer group; from [`Client::group_consumer`](crate::Client::group_consumer).
///
/// ```no_run
/// # async fn example(client: taffrail_client::Client) -> taffrail_client::Result<()> {
/// let mut consumer = client.group_consumer("billing").topics(["orders"]).start().await?;
/// while let Some(records) = consumer.next().await? {
///     records.for_each(|record| println!("{record:?}"));
///     consumer.commit().await?;
/// }
/// # Ok(())
/// # }
/// ```
///
/// Partitions come and go within [`next`](Self::next) only: what it has handed out belongs to this member until it is
/// called again, unless the member is removed meanwhile (see [`GroupConsumerBuilder::max_processing_time`]); then commits
/// are refused. Dropping it leaves the group and commits nothing; [`close`](Self::close) waits for both.
pub struct GroupConsumer {
    shared: Arc<Shared>,
    group: String,
    settings: Settings,
    session: Session,
    /// As the session was when it was looked at last.
    view: View,
    /// The membership that `state` belongs to.
    era: u64,
    /// With which epoch the group was told last what is owned.
    told_epoch: i32,
    /// Everything is as the view wants it.
    settled: bool,
    consumer: Consumer,
    state: State,
    listener: Option<Box<dyn RebalanceListener>>,
    /// What the application wants committed of partitions that go.
    wish: RevokeCommit,
    /// Read, and not handed out yet.
    held: Vec<RecordBatch>,
    /// To be told once what was read before it is handed out.
    failed: Option<Error>,
    auto_due: Instant,
}

impl GroupConsumer {
    fn new(
        shared: Arc<Shared>,
        group: String,
        settings: Settings,
        session: Session,
        consumer: Consumer,
        listener: Option<Box<dyn RebalanceListener>>,
    ) -> Self {
        let view = session.view.borrow().clone();
        Self {
            shared,
            group,
            settings,
            session,
            view,
            era: 0,
            told_epoch: 0,
            settled: true,
            consumer,
            state: State::default(),
            listener,
            wish: RevokeCommit::default(),
            held: vec![],
            failed: None,
            auto_due: Instant::now(),
        }
    }

    /// Waits until the group has taken the member in.
    async fn joined(&mut self) -> Result<()> {
        let patience = self.shared.config.request_timeout;
        let mut deadline = Instant::now() + patience;
        loop {
            let view = self.session.view.clone();
            let done = |v: &View| v.epoch > 0 || v.failed.is_some();
            let waited = timeout_at(deadline, self.session.view.wait_for(done)).await;
            match waited {
                Ok(Ok(view)) if view.failed.is_none() => break,
                Ok(Ok(view)) => return view.failed.clone().map_or(Ok(()), Err),
                Ok(Err(_)) => return Err(task_gone()),
                Err(_) => {}
            }
            let error = view.borrow().waits_for.clone();
            match error {
                // Its predecessor's session must run out first; the session's own task knows when to give up.
                Some(error) if error.reason() == Reason::InstanceInUse => deadline = Instant::now() + patience,
                Some(error) => return Err(error.context(&format!("join group {:?}", self.group))),
                None => return Err(not_taken_in(&self.group, patience)),
            }
        }
        // The wait has seen the view, but nobody has done what it asks for: there may be an assignment in it already.
        self.session.view.mark_changed();
        Ok(())
    }

    /// The next records, of one or several partitions. Waits for them, keeps up with the group meanwhile, and tells the
    /// listener. `None`: everything is read ([`follow(false)`](GroupConsumerBuilder::follow)).
    ///
    /// That it is called says that the application is through with the records before. May be dropped at any time. After an
    /// error it may be called again: what concerns one partition leaves the others as they are.
    pub async fn next(&mut self) -> Result<Option<Records>> {
        self.state.next_called();
        *self.session.busy.lock() = None;
        let records = self.next_records().await?;
        if records.is_some() {
            *self.session.busy.lock() = Some(Instant::now());
        }
        Ok(records)
    }

    async fn next_records(&mut self) -> Result<Option<Records>> {
        loop {
            self.keep_up().await?;
            self.commit_if_due().await;
            let alive = self.is_alive();
            if alive {
                self.gather()?;
                if !self.held.is_empty() {
                    if self.settings.mode == CommitMode::AtMostOnce {
                        self.commit_held().await?;
                    }
                    if let Some(records) = self.hand_out() {
                        return Ok(Some(records));
                    }
                    continue;
                }
                if !self.settings.follow && self.consumer.all_read() {
                    return Ok(None);
                }
            }
            self.wait(alive).await?;
        }
    }

    /// Until something has happened that may bring records.
    async fn wait(&mut self, alive: bool) -> Result<()> {
        let auto = matches!(self.settings.mode, CommitMode::Auto(_)) && !self.state.finished().is_empty();
        let expires = self.session.view.borrow().alive_until;
        tokio::select! {
            changed = self.session.view.changed() => match changed {
                Ok(()) => self.session.view.mark_changed(),
                Err(_) => return Err(self.view.failed.clone().unwrap_or_else(task_gone)),
            },
            () = self.consumer.wait_for_batch(), if alive => {}
            () = sleep_until(self.auto_due), if auto => {}
            () = sleep_until(expires), if alive => {}
        }
        Ok(())
    }

    /// Nobody else can own what this member does.
    fn is_alive(&self) -> bool {
        let view = self.session.view.borrow();
        view.era == self.era && Instant::now() < view.alive_until
    }

    /// Takes what has been read, up to `max_bytes`.
    fn gather(&mut self) -> Result<()> {
        let mut bytes: usize = self.held.iter().map(|b| b.raw().len()).sum();
        while bytes < self.settings.max_bytes && self.failed.is_none() {
            match self.consumer.ready_batch() {
                None => break,
                Some(Ok(batch)) => {
                    bytes += batch.raw().len();
                    self.held.push(batch);
                }
                Some(Err(error)) if is_gone(&error) => tracing::debug!(%error, "the group will say what comes instead"),
                Some(Err(error)) => self.failed = Some(error),
            }
        }
        match self.failed.take_if(|_| self.held.is_empty()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn hand_out(&mut self) -> Option<Records> {
        for batch in &self.held {
            self.state.handed_out(batch.topic_name(), batch.partition(), place(batch));
        }
        let batches = std::mem::take(&mut self.held);
        (!batches.is_empty()).then(|| Records::new(batches))
    }

    /// Hands out no more records of a partition until [`resume`](Self::resume). A partition that goes and comes back is not
    /// paused any more.
    pub fn pause(&mut self, topic: &str, partition: i32) -> Result<()> {
        self.check_owned(topic, partition)?;
        self.read_held_again(topic, partition)?;
        self.consumer.pause(topic, partition)
    }

    /// Goes on with a paused partition.
    pub fn resume(&mut self, topic: &str, partition: i32) -> Result<()> {
        self.check_owned(topic, partition)?;
        self.consumer.resume(topic, partition)
    }

    /// Goes on reading a partition elsewhere. What the group has committed stays until the next commit.
    pub fn seek(&mut self, topic: &str, partition: i32, to: Position) -> Result<()> {
        self.check_owned(topic, partition)?;
        self.held.retain(|b| b.topic() != topic || b.partition() != partition);
        self.state.sought(topic, partition);
        self.consumer.seek(topic, partition, to)
    }

    /// The partitions that it owns.
    pub fn assignment(&self) -> BTreeSet<TopicPartition> {
        self.state.owned()
    }

    /// Its id in the group.
    pub fn member_id(&self) -> String {
        self.session.view.borrow().member_id.clone()
    }

    /// What it has read so far.
    pub fn metrics(&self) -> ConsumerMetrics {
        self.consumer.metrics()
    }

    /// Commits what is finished, if the mode is [`CommitMode::Auto`], and leaves the group: its partitions go to others at
    /// once, or wait for a static member.
    pub async fn close(mut self) -> Result<()> {
        let result = match self.settings.mode {
            CommitMode::Auto(_) => {
                let offsets = self.state.finished();
                self.commit_offsets(offsets).await
            }
            _ => Ok(()),
        };
        let (left, heard) = oneshot::channel();
        if self.session.commands.send(Command::Leave(left)).is_ok() {
            let _ = timeout(CLOSE_TIMEOUT, heard).await;
        }
        result
    }

    fn check_owned(&self, topic: &str, partition: i32) -> Result<()> {
        if self.state.owns(topic, partition) {
            return Ok(());
        }
        let message = format!("partition {partition} of topic {topic:?} does not belong to this member now");
        Err(Error::local(ErrorKind::InvalidArgument, message))
    }

    /// What was read and not handed out is read again when it is wanted.
    fn read_held_again(&mut self, topic: &str, partition: i32) -> Result<()> {
        let ours = |b: &RecordBatch| b.topic() == topic && b.partition() == partition;
        if let Some(first) = self.held.iter().find(|b| ours(b)) {
            let again = Position::Offset(first.first_wanted());
            self.consumer.seek(topic, partition, again)?;
        }
        self.held.retain(|b| !ours(b));
        Ok(())
    }
}

/// The partition is not there any more: the group assigns another, or the same again when it is back.
fn is_gone(error: &Error) -> bool {
    matches!(error.reason(), Reason::UnknownTopic | Reason::UnknownPartition)
}

fn not_taken_in(group: &str, patience: Duration) -> Error {
    let message = format!("group {group:?} did not take the member in within {patience:?}: check the broker");
    Error::transient(ErrorKind::Timeout, RequestOutcome::Unknown, message)
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, watch};

    use super::session::Busy;
    use super::*;
    use crate::Client;

    fn member(view: View) -> (GroupConsumer, watch::Sender<View>, mpsc::UnboundedReceiver<Command>) {
        let shared = Client::connect("localhost:1").unwrap().0;
        let (views, seen) = watch::channel(view);
        let (commands, told) = mpsc::unbounded_channel();
        let session = Session { view: seen, commands, busy: Busy::default() };
        let (mode, reset) = (CommitMode::AtLeastOnce, ResetPolicy::Earliest);
        let settings = Settings { mode, reset, follow: true, max_bytes: 1 << 20 };
        let reader = Consumer::unassigned(shared.clone(), 1 << 20, reset);
        (GroupConsumer::new(shared, "g".to_owned(), settings, session, reader, None), views, told)
    }

    /// Nothing else would wake the member before its next heartbeat, and others may wait for what it lets go of.
    #[tokio::test]
    async fn an_assignment_that_came_with_the_answer_to_a_join_is_acted_on_at_once() {
        let alive_until = Instant::now() + Duration::from_mins(1);
        let (target, waits_for, failed) = (None, None, None);
        let away = View { member_id: "m".to_owned(), epoch: 0, era: 0, target, alive_until, waits_for, failed };
        let (mut consumer, views, mut told) = member(away.clone());
        views.send_replace(View { epoch: 1, target: Some(BTreeSet::new()), ..away });
        consumer.joined().await.unwrap();
        consumer.keep_up().await.unwrap();
        assert!(matches!(told.try_recv(), Ok(Command::Owned(_, 1))), "the group is told what the member owns");
    }

    /// Compiles only while a member can be moved to a task of its own.
    #[tokio::test]
    async fn a_member_can_run_in_a_task_of_its_own() {
        async fn member(client: Client) -> Result<()> {
            let mut consumer = client.group_consumer("").topics(["t"]).start().await?;
            while consumer.next().await?.is_some() {
                consumer.commit().await?;
            }
            consumer.close().await
        }
        let client = Client::connect("localhost:1").unwrap();
        let error = tokio::spawn(member(client)).await.unwrap().expect_err("a group has a name");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}
