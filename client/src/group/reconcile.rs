//! Follows the group: lets partitions go, takes others over, tells the listener. Each step may be broken off and is taken
//! up again by the next call.

use std::sync::Arc;

use taffrail_proto::v1::Reason;

use super::offsets::committed;
use super::session::Command;
use super::state::Changes;
use super::{CommitMode, GroupConsumer, RevokeCommit, Settings, TopicPartition, is_gone};
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
        if !add.is_empty() {
            self.take_over(add).await?;
        }
        Ok(())
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
        for Start { topic, partition, at, end } in starts.into_iter().flatten() {
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
    let at = match (committed, settings.reset) {
        (Some(offset), _) => Position::Offset(offset),
        (None, ResetPolicy::Earliest) => Position::Earliest,
        (None, ResetPolicy::Latest) => Position::Latest,
        (None, ResetPolicy::Fail) => return Err(nothing_committed(&topic, partition)),
    };
    let end = if settings.follow {
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
    Ok(Some(Start { topic, partition, at, end }))
}

struct Start {
    topic: Arc<str>,
    partition: i32,
    at: Position,
    end: Option<i64>,
}

fn nothing_committed(topic: &str, partition: i32) -> Error {
    let message = format!(
        "the group has committed nothing for partition {partition} of topic {topic:?}: reset its offsets, or let the \
         consumer begin at the earliest or latest record"
    );
    Error::local(ErrorKind::NotFound, message)
}
