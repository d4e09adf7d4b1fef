//! What a member commits, and when.

use std::collections::BTreeMap;

use taffrail_proto::v1::{OffsetCommit, OffsetCommitError};
use tokio::time::Instant;

use super::offsets::{Committer, refusal};
use super::session::fenced;
use super::state::Place;
use super::{CommitMode, GroupConsumer, GroupOffset};
use crate::consumer::{Position, RecordBatch};
use crate::error::Result;

impl GroupConsumer {
    /// Commits all records that were handed out, those of the latest call of [`next`](GroupConsumer::next) included: call it when
    /// they are processed. Waits until they are committed.
    ///
    /// Fails with `MemberFenced` when the member was removed from the group: others process the records again.
    /// `next` joins again.
    pub async fn commit(&mut self) -> Result<()> {
        let offsets = self.state.all();
        self.commit_offsets(offsets).await
    }

    /// Commits these offsets, each the next one to process of a partition that the member owns.
    pub async fn commit_offsets(&mut self, offsets: Vec<GroupOffset>) -> Result<()> {
        let refused = self.send_commit(&offsets).await?;
        refusal(&refused).map_or(Ok(()), Err)
    }

    /// Answers what was refused.
    async fn send_commit(&mut self, offsets: &[OffsetCommit]) -> Result<Vec<OffsetCommitError>> {
        if offsets.is_empty() {
            return Ok(vec![]);
        }
        let refused = self.shared.commit_offsets(self.committer()?, offsets).await?;
        let is_kept = |o: &&OffsetCommit| !refused.iter().any(|r| r.topic == o.topic && r.partition == o.partition);
        let kept: Vec<_> = offsets.iter().filter(is_kept).cloned().collect();
        self.state.committed(&kept);
        Ok(refused)
    }

    pub(super) fn committer(&self) -> Result<Committer> {
        let view = self.session.view.borrow();
        if view.era != self.era {
            return Err(fenced());
        }
        Ok(Committer { group: self.group.clone(), member_id: view.member_id.clone(), member_epoch: view.epoch })
    }

    /// At most once: what is held is committed, and what is refused is read again by whoever owns it.
    pub(super) async fn commit_held(&mut self) -> Result<()> {
        let mut last = BTreeMap::new();
        for batch in &self.held {
            let place = place(batch);
            let offset = OffsetCommit {
                topic: batch.topic().to_owned(),
                partition: batch.partition(),
                offset: place.offset,
                leader_epoch: place.epoch,
                metadata: String::new(),
            };
            last.insert((batch.topic().to_owned(), batch.partition()), offset);
        }
        let offsets: Vec<_> = last.into_values().collect();
        for refused in self.send_commit(&offsets).await? {
            let ours = |b: &RecordBatch| b.topic() == refused.topic && b.partition() == refused.partition;
            if let Some(first) = self.held.iter().find(|b| ours(b)) {
                let again = Position::Offset(first.first_wanted());
                self.consumer.seek(&refused.topic, refused.partition, again)?;
            }
            self.held.retain(|b| !ours(b));
        }
        Ok(())
    }

    pub(super) async fn commit_if_due(&mut self) {
        let CommitMode::Auto(interval) = self.settings.mode else { return };
        if Instant::now() < self.auto_due {
            return;
        }
        let offsets = self.state.finished();
        if let Err(error) = self.commit_offsets(offsets).await {
            tracing::warn!(%error, group = self.group, "auto-commit; it will be tried again");
        }
        self.auto_due = Instant::now() + interval;
    }
}

/// Behind a batch.
pub(super) fn place(batch: &RecordBatch) -> Place {
    Place { offset: batch.next_offset(), epoch: Some(batch.header().leader_epoch) }
}
