//! Topics by their identity.

use std::sync::Arc;

use uuid::Uuid;

use crate::coordinator::group::{TopicPartition, TopicView, TopicsView};
use crate::topics::{Image, Topic};

/// The topics that groups may use, at one moment.
pub struct Directory {
    /// With the internal ones, which are left out of every answer.
    image: Arc<Image>,
    view: Arc<TopicsView>,
}

impl Directory {
    /// Of all topics that are served; internal ones are left out.
    pub fn of(image: Arc<Image>) -> Self {
        let view = |topic: &Arc<Topic>| TopicView { id: topic.id, partitions: topic.partitions.len() as i32 };
        let topics = image.topics().filter(|topic| is_for_groups(topic));
        let topics = topics.map(|topic| (topic.name.clone(), view(topic))).collect();
        Self { view: Arc::new(TopicsView { topics }), image }
    }

    /// Of the [`Image`] that it was made of.
    pub(super) fn revision(&self) -> u64 {
        self.image.revision
    }

    /// What coordinators see.
    pub fn view(&self) -> Arc<TopicsView> {
        self.view.clone()
    }

    /// A topic by its identity.
    pub fn topic(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.image.by_id(id).filter(|topic| is_for_groups(topic))
    }

    /// The topic of a partition, if it has that partition.
    pub fn topic_of(&self, partition: TopicPartition) -> Option<&Arc<Topic>> {
        self.topic(partition.topic).filter(|topic| topic.partition(partition.partition).is_ok())
    }

    /// A topic by its name.
    pub fn named(&self, name: &str) -> Option<&Arc<Topic>> {
        self.image.topic(name).ok().filter(|topic| is_for_groups(topic))
    }
}

fn is_for_groups(topic: &Topic) -> bool {
    !topic.internal
}
