//! Where the replicas of partitions are, and which of them are in sync: what metadata knows beyond a topic's description.

use std::collections::HashMap;

use anyhow::Result;
use taffrail_client::Client;
use taffrail_proto::v1::{GetMetadataResponse, PartitionMetadata};

/// Replicas of partitions, by topic id and index.
#[derive(Debug, Default)]
pub(crate) struct Replicas(HashMap<(String, i32), PartitionMetadata>);

impl Replicas {
    /// Of these topics; no names: of all.
    pub(crate) async fn of(client: &Client, topics: &[&str]) -> Result<Self> {
        Ok(Self::known(client.metadata(topics).await?))
    }

    /// That metadata tells of.
    pub(crate) fn known(metadata: GetMetadataResponse) -> Self {
        let mut known = HashMap::new();
        for topic in metadata.topics {
            known.extend(topic.partitions.into_iter().map(|p| ((topic.topic_id.clone(), p.index), p)));
        }
        Self(known)
    }

    fn partition(&self, topic_id: &str, index: i32) -> Option<&PartitionMetadata> {
        self.0.get(&(topic_id.to_owned(), index))
    }

    /// Brokers that have it, the preferred leader first.
    pub(crate) fn all(&self, topic_id: &str, index: i32) -> &[i32] {
        self.partition(topic_id, index).map_or(&[], |partition| &partition.replicas)
    }

    /// Those of them that are in sync.
    pub(crate) fn in_sync(&self, topic_id: &str, index: i32) -> &[i32] {
        self.partition(topic_id, index).map_or(&[], |partition| &partition.isr)
    }

    /// Those that are being added, as the partition moves.
    pub(crate) fn adding(&self, topic_id: &str, index: i32) -> &[i32] {
        self.partition(topic_id, index).map_or(&[], |partition| &partition.adding)
    }

    /// Those that go once the others have caught up.
    pub(crate) fn removing(&self, topic_id: &str, index: i32) -> &[i32] {
        self.partition(topic_id, index).map_or(&[], |partition| &partition.removing)
    }

    fn of_topic(&self, topic_id: &str) -> Vec<&PartitionMetadata> {
        let of_topic = self.0.iter().filter(|((topic, _), _)| topic == topic_id);
        let mut partitions: Vec<_> = of_topic.map(|(_, partition)| partition).collect();
        partitions.sort_unstable_by_key(|partition| partition.index);
        partitions
    }

    /// Partitions that move, each in a sentence.
    pub(crate) fn moves(&self, topic_id: &str) -> Vec<String> {
        let moving = self.of_topic(topic_id).into_iter().filter(|p| !p.adding.is_empty() || !p.removing.is_empty());
        let told = |p: &PartitionMetadata| {
            let (adding, removing) = (numbers(&p.adding), numbers(&p.removing));
            format!("partition {} moves: adding {adding}, removing {removing}", p.index)
        };
        moving.map(told).collect()
    }

    /// How many replicas each broker has, and how many partitions it leads, of all that is known.
    pub(crate) fn load(&self, broker: i32) -> (usize, usize) {
        let replicas = self.0.values().filter(|partition| partition.replicas.contains(&broker)).count();
        (replicas, self.0.values().filter(|partition| partition.leader == broker).count())
    }

    /// What somebody should see of a topic's partitions, in a sentence; nothing if all replicas are in sync. Those that are being
    /// added are on their way.
    pub(crate) fn shortfall(&self, topic_id: &str) -> Option<String> {
        let is_behind = |p: &PartitionMetadata| {
            p.replicas.iter().any(|broker| !p.isr.contains(broker) && !p.adding.contains(broker))
        };
        let behind: Vec<_> = self.of_topic(topic_id).into_iter().filter(|p| is_behind(p)).map(|p| p.index).collect();
        let count = behind.len();
        (count > 0).then(|| format!("{count} partitions have replicas that are not in sync: {}", numbers(&behind)))
    }
}

/// Numbers with commas, as Kafka's tools show them; a dash for none.
pub(crate) fn numbers(numbers: &[i32]) -> String {
    if numbers.is_empty() {
        return "-".to_owned();
    }
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use taffrail_proto::v1::TopicMetadata;

    use super::*;

    #[test]
    fn replicas_are_found_by_topic_and_partition_and_those_behind_are_named() {
        let partition = |index, isr: &[i32]| PartitionMetadata {
            index,
            leader: 2,
            replicas: vec![2, 0, 1],
            isr: isr.to_vec(),
            ..PartitionMetadata::default()
        };
        let topic =
            |id: &str, partitions| TopicMetadata { topic_id: id.into(), partitions, ..TopicMetadata::default() };
        let metadata = GetMetadataResponse {
            topics: vec![
                topic("a", vec![partition(0, &[2, 1]), partition(1, &[0, 1, 2]), partition(2, &[])]),
                topic("b", vec![partition(0, &[2, 0, 1])]),
            ],
            ..GetMetadataResponse::default()
        };
        let replicas = Replicas::known(metadata);
        assert_eq!((replicas.all("a", 0), replicas.in_sync("a", 0)), (&[2, 0, 1][..], &[2, 1][..]));
        assert_eq!((numbers(replicas.all("a", 0)), numbers(replicas.in_sync("a", 2))), ("2,0,1".into(), "-".into()));
        assert_eq!(replicas.shortfall("a").unwrap(), "2 partitions have replicas that are not in sync: 0,2");
        assert_eq!((replicas.shortfall("b"), replicas.all("c", 0)), (None, &[][..]));
        assert_eq!((replicas.load(2), replicas.load(7)), ((4, 4), (0, 0)));
    }

    #[test]
    fn a_partition_that_moves_is_shown_and_what_is_on_its_way_is_not_behind() {
        let partition = PartitionMetadata {
            index: 3,
            replicas: vec![2, 0, 1],
            isr: vec![0, 1],
            adding: vec![2],
            removing: vec![1],
            ..PartitionMetadata::default()
        };
        let partitions = vec![partition];
        let topics = vec![TopicMetadata { topic_id: "a".into(), partitions, ..TopicMetadata::default() }];
        let replicas = Replicas::known(GetMetadataResponse { topics, ..GetMetadataResponse::default() });
        assert_eq!(replicas.moves("a"), ["partition 3 moves: adding 2, removing 1"]);
        assert_eq!((replicas.adding("a", 3), replicas.removing("a", 3)), (&[2][..], &[1][..]));
        assert_eq!(replicas.shortfall("a"), None);
    }
}
