//! Topics by their identity.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use crate::coordinator::group::{TopicPartition, TopicView, TopicsView};
use crate::topics::{Image, Topic};

/// The topics that groups may use, at one moment.
#[derive(Default)]
pub struct Directory {
    by_id: HashMap<Uuid, Arc<Topic>>,
    by_name: HashMap<Arc<str>, Uuid>,
    view: Arc<TopicsView>,
    revision: u64,
}

impl Directory {
    /// Of all topics that are served; internal ones are left out.
    pub fn of(image: &Image) -> Self {
        let topics = || image.topics().filter(|topic| !topic.internal);
        let view = |topic: &Arc<Topic>| TopicView { id: topic.id, partitions: topic.partitions.len() as i32 };
        Self {
            revision: image.revision,
            by_id: topics().map(|topic| (topic.id, topic.clone())).collect(),
            by_name: topics().map(|topic| (topic.name.clone(), topic.id)).collect(),
            view: Arc::new(TopicsView { topics: topics().map(|topic| (topic.name.clone(), view(topic))).collect() }),
        }
    }

    /// Of the [`Image`] that it was made of.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// What coordinators see.
    pub fn view(&self) -> Arc<TopicsView> {
        self.view.clone()
    }

    /// A topic by its identity.
    pub fn topic(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// The topic of a partition, if it has that partition.
    pub fn topic_of(&self, partition: TopicPartition) -> Option<&Arc<Topic>> {
        self.topic(partition.topic).filter(|topic| topic.partition(partition.partition).is_ok())
    }

    /// A topic by its name.
    pub fn named(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topic(*self.by_name.get(name)?)
    }
}
