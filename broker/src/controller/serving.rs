//! Makes topics' logs and puts them into service and out of it.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use uuid::Uuid;

use crate::brokers::ALONE;
use crate::context::Context;
use crate::partition::{LeadError, Partition, Term, raise_epoch};
use crate::storage::{Log, LogId, PartitionId, Storage, StorageError, blocking};
use crate::topics::{Assignment, Settings, Topic, Topics};

/// Storage and the registry of what is served.
pub(super) struct Serving {
    context: Context,
    storage: Arc<dyn Storage>,
    topics: Arc<Topics>,
}

/// A partition that is led here: this broker is the only one.
type Led = (Partition, Assignment);

/// Logs by what they hold.
pub(super) type Logs = HashMap<PartitionId, Arc<dyn Log>>;

/// Why a topic is not served.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum ServingError {
    /// Logs that were made are not there: an empty one in their place would hide the loss (M9).
    #[error(
        "the log of partition {0} is missing in the data directory: restore it, or delete the topic and make it again"
    )]
    MissingLog(i32),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Lead(#[from] LeadError),
}

/// A topic to be served.
pub(super) struct Wanted {
    pub(super) name: Arc<str>,
    pub(super) id: Uuid,
    pub(super) settings: Settings,
    pub(super) partitions: i32,
    /// Partitions whose logs must be there.
    pub(super) made: i32,
}

impl Serving {
    pub(super) fn new(context: Context, storage: Arc<dyn Storage>, topics: Arc<Topics>) -> Self {
        Self { context, storage, topics }
    }

    /// Where this start cannot prove that all acknowledged appends are there, raises the leader epoch of every log, also of
    /// those that are not served now but may be again (D7).
    pub(super) async fn raise_epochs(&self) -> Result<(), StorageError> {
        if self.storage.identity().complete {
            return Ok(());
        }
        tracing::warn!("the last stop may have lost acknowledged records: the leader epoch of every partition rises");
        let logs = self.storage.logs();
        let raising: Vec<_> = logs.iter().map(|log| raise_epoch(&**log)).collect();
        futures::future::try_join_all(raising).await?;
        let storage = self.storage.clone();
        blocking(move || storage.mark_complete()).await
    }

    /// All logs there are.
    pub(super) fn logs(&self) -> Logs {
        self.storage.logs().into_iter().map(|log| (log.partition(), log)).collect()
    }

    /// The logs of a topic.
    pub(super) fn logs_of(&self, topic: Uuid) -> Vec<LogId> {
        let logs = self.storage.logs();
        logs.iter().filter(|log| log.partition().topic == topic).map(|log| log.id()).collect()
    }

    /// Number of a topic's partitions, by its logs; `None`: it has none.
    pub(super) fn partitions_of(&self, topic: Uuid) -> Option<i32> {
        let logs = self.storage.logs();
        logs.iter().map(|log| log.partition()).filter(|id| id.topic == topic).map(|id| id.index + 1).max()
    }

    /// Makes what is missing of a topic's logs and opens them. Does not publish it.
    pub(super) async fn open(&self, wanted: Wanted, logs: &Logs) -> Result<Arc<Topic>, ServingError> {
        let found: Vec<_> =
            (0..wanted.partitions).map(|index| logs.get(&PartitionId { topic: wanted.id, index }).cloned()).collect();
        let missing = found.iter().zip(0..wanted.made).find(|(log, _)| log.is_none());
        if let Some((_, index)) = missing {
            return Err(ServingError::MissingLog(index));
        }
        let logs = match found.into_iter().collect::<Option<Vec<_>>>() {
            Some(logs) => logs,
            None => self.make(wanted.id, 0..wanted.partitions).await?,
        };
        let settings = Arc::new(ArcSwap::from_pointee(wanted.settings));
        let partitions = self.open_all(logs, &settings).await?;
        Ok(Arc::new(Topic::new(wanted.name, wanted.id, settings, partitions)))
    }

    /// Makes logs for the partitions that a topic gets in addition, and opens them. Does not publish them.
    pub(super) async fn grow(&self, topic: &Topic, partitions: i32) -> Result<Vec<Led>, ServingError> {
        let logs = self.make(topic.id, topic.partitions.len() as i32..partitions).await?;
        Ok(self.open_all(logs, topic.settings_cell()).await?)
    }

    /// The logs of these partitions, made where there are none.
    async fn make(&self, topic: Uuid, partitions: std::ops::Range<i32>) -> Result<Vec<Arc<dyn Log>>, StorageError> {
        let storage = self.storage.clone();
        let partitions: Vec<_> = partitions.map(|index| PartitionId { topic, index }).collect();
        blocking(move || storage.create_all(&partitions)).await
    }

    async fn open_all(
        &self,
        logs: Vec<Arc<dyn Log>>,
        settings: &Arc<ArcSwap<Settings>>,
    ) -> Result<Vec<Led>, LeadError> {
        // All at once: each may wait for its first leader epoch to be written, which storage does for many together.
        let lead = async |log| {
            let partition = Partition::lead(log, self.context.clone(), settings.clone(), Term::alone(None)).await?;
            let assignment = Assignment::alone(ALONE, partition.snapshot().leader_epoch);
            Ok((partition, assignment))
        };
        let opening: Vec<_> = logs.into_iter().map(lead).collect();
        futures::future::try_join_all(opening).await
    }

    /// Serves topics, in the place of those of the same name.
    pub(super) fn publish(&self, topics: Vec<Arc<Topic>>) {
        self.topics.change(topics, &[]);
    }

    /// A topic that is served.
    pub(super) fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics.image().topic(name).ok().cloned()
    }

    /// Takes a topic out of service. What is in flight is finished; its logs stay.
    pub(super) async fn withdraw(&self, name: &str) {
        let Some(topic) = self.topic(name) else { return };
        self.topics.change(vec![], std::slice::from_ref(&topic.name));
        stop(&topic.partitions).await;
    }

    /// Takes everything out of service, but leaves the names known: clients shall not think the topics gone.
    pub(super) async fn stop(&self) {
        let image = self.topics.full_image();
        let partitions: Vec<_> = image.topics().flat_map(|topic| topic.partitions.iter().cloned()).collect();
        stop(&partitions).await;
    }

    /// Deletes logs for good.
    pub(super) async fn delete(&self, logs: Vec<LogId>) -> Result<(), StorageError> {
        let storage = self.storage.clone();
        blocking(move || logs.into_iter().try_for_each(|log| storage.delete(log))).await
    }
}

async fn stop(partitions: &[Partition]) {
    futures::future::join_all(partitions.iter().map(Partition::stop)).await;
}
