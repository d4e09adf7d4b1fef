//! Follows the group: lets partitions go, takes others over, tells the listener. Each step may be broken off and is taken
//! up again by the next call.

use std::sync::Arc;

use taffrail_proto::v1::{LogError, OffsetCommit, Outcome, Reason};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::offsets::committed;
use super::session::Command;
use super::state::Changes;
use super::{CLOSE_TIMEOUT, CommitMode, GroupConsumer, RevokeCommit, Settings, TopicPartition, is_gone};
use crate::admin::OffsetSpec;
use crate::client::Shared;
use crate::consumer::{Position, ResetPolicy};
use crate::error::{Error, ErrorKind, Result};

impl GroupConsumer {
    /// Does what the group has asked for since the last call.
    pub(super) async fn keep_up(&mut self) -> Result<()> {
        // A task that has ended may have left its reason.
        if self.session.view.has_changed().unwrap_or(true) {
            self.view = self.session.view.borrow_and_update().clone();
            self.settled = false;
        }
        if self.settled {
            return Ok(());
        }
        if let Some(error) = &self.view.failed {
            return Err(error.clone());
        }
        if self.view.era != self.era {
            self.lose();
        }
        if let Some(target) = &self.view.target {
            let changes = self.state.changes(target);
            self.change(changes).await?;
            if self.view.epoch != self.told_epoch {
                self.told_epoch = self.view.epoch;
                self.tell_owned();
            }
        }
        self.settled = true;
        Ok(())
    }

    async fn change(&mut self, changes: Changes) -> Result<()> {
        let Changes { announce, revoke, add } = changes;
        if !revoke.is_empty() {
            self.announce(&announce);
            self.release(&revoke).await;
            self.tell_owned();
        }
        if !add.is_empty()
            && let Err(error) = self.take_over(add).await
        {
            if error.reason() == Reason::NoCommittedOffset {
                self.step_down().await;
            }
            return Err(error);
        }
        Ok(())
    }

    /// The application has to decide where to begin: others may have the partitions meanwhile. The next call of `next` joins
    /// again.
    async fn step_down(&mut self) {
        let owned: Vec<_> = self.state.owned().into_iter().collect();
        self.announce(&owned);
        self.release(&owned).await;
        let (left, heard) = oneshot::channel();
        self.tell(Command::StepDown(left));
        let _ = timeout(CLOSE_TIMEOUT, heard).await;
    }

    /// The member was removed: what it owned may belong to others already.
    fn lose(&mut self) {
        let lost = self.state.lost();
        self.stop_reading(&lost);
        self.wish = RevokeCommit::default();
        (self.era, self.told_epoch) = (self.view.era, 0);
        tracing::warn!(group = self.group, partitions = lost.len(), "removed from the group; joining again");
        if let (Some(listener), false) = (&mut self.listener, lost.is_empty()) {
            listener.lost(&lost);
        }
        self.tell(Command::ToldOfLoss);
    }

    fn announce(&mut self, partitions: &[TopicPartition]) {
        if let (Some(listener), false) = (&mut self.listener, partitions.is_empty()) {
            listener.revoked(partitions, &mut self.wish);
        }
        self.state.announced(partitions);
    }

    /// Commits what is to be committed, then lets go.
    async fn release(&mut self, partitions: &[TopicPartition]) {
        let auto = matches!(self.settings.mode, CommitMode::Auto(_));
        let offsets = self.state.at_revoke(partitions, &self.wish, auto);
        if let Err(error) = self.commit_offsets(offsets).await {
            tracing::warn!(%error, group = self.group, "commit of partitions that go; others will see records again");
        }
        self.wish = RevokeCommit::default();
        self.stop_reading(partitions);
        self.state.released(partitions);
    }

    fn stop_reading(&mut self, partitions: &[TopicPartition]) {
        for p in partitions {
            self.consumer.unassign(&p.topic, p.partition);
            self.held.retain(|b| *b.topic_name() != p.topic || b.partition() != p.partition);
        }
    }

    /// Goes on where the group stopped.
    async fn take_over(&mut self, partitions: Vec<TopicPartition>) -> Result<()> {
        let names: Vec<_> = partitions.iter().map(|p| (&*p.topic, p.partition)).collect();
        let mut starts = vec![];
        for offset in self.shared.fetch_offsets(&self.group, &names).await? {
            let topic: Arc<str> = offset.topic.as_str().into();
            match committed(&offset) {
                Ok(committed) => {
                    starts.push(start(&self.shared, self.settings, (topic, offset.partition), committed).await?);
                }
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let starts: Vec<_> = starts.into_iter().flatten().collect();
        self.commit_starts(&starts).await?;
        for Start { topic, partition, at, end, .. } in starts {
            self.consumer.assign(&topic, partition, at, end);
            let committed = if let Position::Offset(offset) = at { Some(offset) } else { None };
            let ours = |p: &&TopicPartition| p.topic == topic && p.partition == partition;
            if let Some(id) = partitions.iter().find(ours) {
                self.state.assigned(id.clone(), committed);
            }
        }
        // One that is gone is owned in name only, until the group takes it away.
        for id in partitions.iter().filter(|p| !self.state.owns(&p.topic, p.partition)).collect::<Vec<_>>() {
            self.state.assigned(id.clone(), None);
        }
        if let Some(listener) = &mut self.listener {
            listener.assigned(&partitions);
        }
        Ok(())
    }

    /// Where "latest" was when the group began is kept before anything is read: whoever comes next, should this member die
    /// before its first commit, goes on from there and skips nothing.
    async fn commit_starts(&mut self, starts: &[Start]) -> Result<()> {
        let offsets: Vec<_> = starts.iter().filter_map(Start::begun).collect();
        if offsets.is_empty() {
            return Ok(());
        }
        // Removed meanwhile: what is read now is not handed out.
        let Ok(committer) = self.committer() else { return Ok(()) };
        match self.shared.commit_offsets(committer, &offsets).await {
            Ok(refused) => refused.iter().for_each(|refused| tracing::debug!(?refused, "not the member's any more")),
            // The session hears it too, and says what comes next.
            Err(error) if error.kind() == ErrorKind::MemberFenced => tracing::debug!(%error, "commit of a beginning"),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The group may give to others what is not owned any more.
    fn tell_owned(&self) {
        self.tell(Command::Owned(self.state.owned(), self.view.epoch));
    }

    fn tell(&self, command: Command) {
        // A task that has ended said why in the view.
        let _ = self.session.commands.send(command);
    }
}

/// Where to begin; `None`: the topic is gone.
async fn start(
    shared: &Arc<Shared>,
    settings: Settings,
    (topic, partition): (Arc<str>, i32),
    committed: Option<i64>,
) -> Result<Option<Start>> {
    match shared.topic(&topic).await {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    if committed.is_none() && settings.reset == ResetPolicy::Fail {
        return Err(nothing_committed(&topic, partition));
    }
    let is_begun = committed.is_none() && settings.reset == ResetPolicy::Latest;
    let latest = if settings.follow && !is_begun {
        None
    } else {
        match shared.list_offset(&topic, partition, OffsetSpec::Latest).await {
            Ok(listed) => listed.offset,
            Err(error) if matches!(error.reason(), Reason::UnknownTopic | Reason::UnknownPartition) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    };
    let at = match (committed, latest) {
        (Some(offset), _) => Position::Offset(offset),
        (None, Some(latest)) if is_begun => Position::Offset(latest),
        (None, None) if is_begun => Position::Latest,
        (None, _) => Position::Earliest,
    };
    Ok(Some(Start { topic, partition, at, end: latest.filter(|_| !settings.follow), is_begun }))
}

struct Start {
    topic: Arc<str>,
    partition: i32,
    at: Position,
    end: Option<i64>,
    /// Nobody in the group has read it before, and it begins at the latest record.
    is_begun: bool,
}

impl Start {
    /// To be committed before anything is read.
    fn begun(&self) -> Option<OffsetCommit> {
        let Position::Offset(offset) = self.at else { return None };
        let (topic, partition) = (self.topic.to_string(), self.partition);
        self.is_begun.then(|| OffsetCommit { topic, partition, offset, ..OffsetCommit::default() })
    }
}

fn nothing_committed(topic: &str, partition: i32) -> Error {
    let message = format!(
        "the group has committed nothing for partition {partition} of topic {topic:?}: reset its offsets, or let the \
         consumer begin at the earliest or latest record"
    );
    let reason = Reason::NoCommittedOffset.into();
    LogError { reason, message, outcome: Outcome::NotApplied.into(), ..LogError::default() }.into()
}
