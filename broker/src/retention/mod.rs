//! Retention: gives up records that are older than their topic keeps them, or beyond its size, and then the space that
//! nothing needs any more. [`plan`] decides; this runs it.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::plan::{JumpGuard, LogState};
use crate::context::Context;
use crate::controller::TopicAdmin;
use crate::partition::Partition;
use crate::storage::{Maintenance, Storage, StorageError, blocking};
use crate::topics::{Settings, Topics};

pub mod plan;

/// Time between two rounds. Well below the hour in which a storage epoch is sealed at the latest.
const ROUND: Duration = Duration::from_secs(30);

/// What the job works on.
pub struct Retention {
    context: Context,
    storage: Arc<dyn Storage>,
    topics: Arc<Topics>,
    controller: Arc<dyn TopicAdmin>,
    guard: JumpGuard,
}

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Partitions whose start was raised.
    pub trimmed: u64,
    /// Bytes given up for their age.
    pub aged_bytes: u64,
    /// Topics whose time in the trash was over.
    pub purged: u64,
    /// What storage did with it.
    pub maintenance: Maintenance,
}

impl Retention {
    /// Over everything that is served.
    pub fn new(
        context: Context,
        storage: Arc<dyn Storage>,
        topics: Arc<Topics>,
        controller: Arc<dyn TopicAdmin>,
    ) -> Self {
        Self { context, storage, topics, controller, guard: JumpGuard::default() }
    }

    /// A round every 30 seconds until `stop`. Keeps log time a last time at the end.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut rounds = tokio::time::interval(ROUND);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(rounds.tick()).await.is_some() {
            if let Err(error) = self.round().await {
                tracing::warn!(%error, "retention or maintenance failed; the next round tries again");
            }
        }
        let saved = tokio::task::spawn_blocking(move || self.context.save_log_time(&*self.storage.meta())).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "log time could not be kept for the next start, which goes by what was kept before");
        }
    }

    /// Raises log starts, empties the trash of what is over, lets storage reclaim, keeps log time.
    pub async fn round(&mut self) -> Result<Round, StorageError> {
        let mut round = self.trim_all().await;
        round.purged = self.controller.purge().await;
        let (storage, context) = (self.storage.clone(), self.context.clone());
        let maintain = move || {
            // First: it may make the room that the other needs.
            let maintenance = storage.maintain(context.log_millis())?;
            context.save_log_time(&*storage.meta()).map(|()| maintenance)
        };
        round.maintenance = blocking(maintain).await?;
        Ok(round)
    }

    async fn trim_all(&mut self) -> Round {
        let (wall, since_boot) = (self.context.wall_millis(), self.context.clock().since_boot());
        if let Some(by_ms) = self.guard.observe(wall, since_boot) {
            tracing::warn!(by_ms, hold = ?plan::HOLD, "the wall clock jumped: no record goes for its age for a while");
        }
        let image = self.topics.full_image();
        let mut budget = if self.guard.holds(since_boot) {
            0
        } else {
            plan::aged_budget(image.topics().flat_map(|topic| &topic.partitions).map(Partition::size_bytes).sum())
        };
        let mut round = Round::default();
        for topic in image.topics() {
            for partition in &topic.partitions {
                if let Some(aged_bytes) = self.trim(partition, &topic.settings, budget).await {
                    budget -= aged_bytes;
                    round.aged_bytes += aged_bytes;
                    round.trimmed += 1;
                }
            }
        }
        round
    }

    /// Raises one partition's start. Answers the bytes that went for their age.
    async fn trim(&self, partition: &Partition, settings: &Settings, aged_budget: u64) -> Option<u64> {
        if settings.retention_ms.is_none() && settings.retention_bytes.is_none() {
            return None;
        }
        // The leader does it.
        let (log, snapshot) = (partition.log()?, partition.snapshot());
        let spans = log.spans();
        let bound = snapshot.high_watermark.min(snapshot.last_stable);
        let state = LogState { spans: &spans, size: log.size_bytes(), log_start: snapshot.log_start, bound };
        let trim = plan::plan(&state, settings, self.context.log_millis(), aged_budget)?;
        match partition.delete_records(trim.to).await {
            Ok(_) => Some(trim.aged_bytes),
            Err(error) => {
                tracing::warn!(partition = ?partition.id(), %error, "retention could not raise the log's start");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
