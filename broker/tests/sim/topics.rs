//! Topics that are made, grow, go, and come back.

use std::sync::Arc;

use taffrail_broker::coordinator::group::{Subscription, TopicPartition, TopicView, TopicsView};
use uuid::Uuid;

use super::counts::{Counts, Seen};
use super::rng::Rng;

const NAMES: [&str; 3] = ["a", "b", "bb"];

#[derive(Clone, Copy)]
struct Topic {
    view: TopicView,
    is_there: bool,
}

pub(crate) struct Topics {
    by_name: [Option<Topic>; 3],
    made: u128,
}

impl Topics {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let mut this = Self { by_name: [None; 3], made: 2 };
        for at in 0..2 {
            this.make(at, rng);
        }
        this
    }

    fn make(&mut self, at: usize, rng: &mut Rng) {
        self.made += 1;
        let view = TopicView { id: Uuid::from_u128(self.made), partitions: 1 + rng.below(4) as i32 };
        self.by_name[at] = Some(Topic { view, is_there: true });
    }

    pub(crate) fn view(&self) -> TopicsView {
        let there = NAMES.iter().zip(&self.by_name).filter_map(|(name, topic)| {
            let topic = topic.filter(|topic| topic.is_there)?;
            Some((Arc::from(*name), topic.view))
        });
        TopicsView { topics: there.collect() }
    }

    pub(crate) fn change(&mut self, rng: &mut Rng, counts: &mut Counts) {
        let at = rng.index(NAMES.len());
        match &mut self.by_name[at] {
            None => {
                counts.saw(Seen::TopicMade);
                self.make(at, rng);
            }
            Some(topic) if !topic.is_there && rng.once_in(2) => {
                counts.saw(Seen::TopicRestored);
                topic.is_there = true;
            }
            Some(topic) if !topic.is_there => {
                counts.saw(Seen::TopicRemade);
                self.make(at, rng);
            }
            Some(topic) if rng.once_in(2) && topic.view.partitions < 6 => {
                counts.saw(Seen::TopicGrown);
                topic.view.partitions += 1;
            }
            Some(topic) => {
                counts.saw(Seen::TopicDeleted);
                topic.is_there = false;
            }
        }
    }

    /// Any partition, there or not.
    pub(crate) fn any_partition(&self, rng: &mut Rng) -> TopicPartition {
        let topic = Uuid::from_u128(3 + u128::from(rng.below(self.made as u64 - 1)));
        TopicPartition { topic, partition: rng.below(6) as i32 }
    }

    /// What a subscription comes to.
    pub(crate) fn partitions(&self, subscription: &Subscription) -> Vec<TopicPartition> {
        let mut partitions = vec![];
        for (name, topic) in self.view().topics {
            let matches = subscription.pattern.as_deref() == Some("b.*") && name.starts_with('b');
            if matches || subscription.topics.contains(&*name) {
                let all = 0..topic.partitions;
                partitions.extend(all.map(|partition| TopicPartition { topic: topic.id, partition }));
            }
        }
        partitions
    }
}

pub(crate) fn any_subscription(rng: &mut Rng) -> Subscription {
    let topics = match rng.below(5) {
        0 => &NAMES[..1],
        1 => &NAMES[1..],
        2 => &NAMES[..0],
        _ => &NAMES[..],
    };
    let pattern = (topics.is_empty() || rng.once_in(6)).then(|| "b.*".to_owned());
    Subscription { topics: topics.iter().map(|&name| name.to_owned()).collect(), pattern }
}
