//! What is counted for each topic, and shown for each partition. Both label sets are bounded.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Topics with numbers of their own; those beyond share [`OTHER_TOPICS`]. A bound, since a series costs memory here and in
/// whatever scrapes it, and clients make topics.
pub const MAX_TOPICS: usize = 1_000;
/// Partitions whose ends and sizes are shown.
pub const MAX_PARTITIONS: usize = 10_000;
/// Label of all topics beyond [`MAX_TOPICS`]; not a valid name of a topic.
pub const OTHER_TOPICS: &str = "__other";

/// The numbers of one topic. Take them once per partition or stream and keep them: counting is then one atomic addition.
#[derive(Clone, Debug, Default)]
pub struct TopicMetrics {
    /// Bytes of batches appended.
    pub produced_bytes: Counter,
    /// Records appended.
    pub produced_records: Counter,
    /// Batches appended.
    pub produced_batches: Counter,
    /// Bytes of batches sent to readers.
    pub fetched_bytes: Counter,
    /// Records in the batches sent to readers.
    pub fetched_records: Counter,
    /// Batches sent to readers.
    pub fetched_batches: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TopicLabels {
    topic: String,
}

/// All topics' numbers.
#[derive(Debug, Default)]
pub(super) struct Topics {
    topics: RwLock<BTreeMap<String, TopicMetrics>>,
}

impl Topics {
    pub(super) fn get(&self, name: &str) -> TopicMetrics {
        if let Some(known) = self.topics.read().get(name) {
            return known.clone();
        }
        let mut topics = self.topics.write();
        let name = if topics.len() < MAX_TOPICS { name } else { OTHER_TOPICS };
        topics.entry(name.to_owned()).or_default().clone()
    }

    pub(super) fn forget(&self, name: &str) {
        self.topics.write().remove(name);
    }

    fn family(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help, unit): (&str, &str, Option<&Unit>),
        value: fn(&TopicMetrics) -> &Counter,
    ) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (topic, numbers) in self.topics.read().iter() {
            let labels = TopicLabels { topic: topic.clone() };
            value(numbers).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Collector over [`Topics`].
#[derive(Debug)]
pub(super) struct TopicCollector(pub(super) Arc<Topics>);

impl Collector for TopicCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (e, bytes) = (&mut encoder, Some(&Unit::Bytes));
        let all = &self.0;
        all.family(e, ("produced", "Bytes of record batches appended", bytes), |t| &t.produced_bytes)?;
        all.family(e, ("produced_records", "Records appended", None), |t| &t.produced_records)?;
        all.family(e, ("produced_batches", "Record batches appended", None), |t| &t.produced_batches)?;
        all.family(e, ("fetched", "Bytes of record batches sent to readers", bytes), |t| &t.fetched_bytes)?;
        all.family(e, ("fetched_records", "Records in batches sent to readers", None), |t| &t.fetched_records)?;
        all.family(e, ("fetched_batches", "Record batches sent to readers", None), |t| &t.fetched_batches)
    }
}

/// State of a partition at a scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionSample {
    /// Name of its topic.
    pub topic: Arc<str>,
    /// Its number.
    pub partition: i32,
    /// First offset that is there.
    pub log_start: i64,
    /// End of what readers may see.
    pub high_watermark: i64,
    /// Next offset to be written.
    pub log_end: i64,
    /// Bytes of its batches.
    pub size_bytes: u64,
}

/// Tells the state of at most so many partitions, and how many there are.
pub type PartitionSource = Box<dyn Fn(usize) -> (Vec<PartitionSample>, usize) + Send + Sync>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabels {
    topic: String,
    partition: i32,
}

/// Collector that asks a [`PartitionSource`] at each scrape.
pub(super) struct PartitionCollector(pub(super) PartitionSource);

impl fmt::Debug for PartitionCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PartitionCollector")
    }
}

impl PartitionCollector {
    fn family(
        encoder: &mut DescriptorEncoder<'_>,
        samples: &[PartitionSample],
        (name, help, unit): (&str, &str, Option<&Unit>),
        value: fn(&PartitionSample) -> i64,
    ) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for sample in samples {
            let labels = PartitionLabels { topic: sample.topic.to_string(), partition: sample.partition };
            ConstGauge::new(value(sample)).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl Collector for PartitionCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (samples, total) = (self.0)(MAX_PARTITIONS);
        let (e, s) = (&mut encoder, &samples);
        Self::family(e, s, ("partition_log_start_offset", "First offset that is still there", None), |p| p.log_start)?;
        let help = "End of what readers may see, exclusive";
        Self::family(e, s, ("partition_high_watermark", help, None), |p| p.high_watermark)?;
        Self::family(e, s, ("partition_log_end_offset", "Next offset to be written", None), |p| p.log_end)?;
        let help = "Bytes of record batches stored";
        Self::family(e, s, ("partition_size", help, Some(&Unit::Bytes)), |p| p.size_bytes as i64)?;
        let help = "Partitions, also those beyond the bound of 10,000 that have no series of their own";
        let metric = encoder.encode_descriptor("partitions", help, None, MetricType::Gauge)?;
        ConstGauge::new(total as i64).encode(metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_beyond_the_bound_share_one_series() {
        let topics = Topics::default();
        for number in 0..MAX_TOPICS + 10 {
            topics.get(&format!("t{number}")).produced_records.inc();
        }
        assert_eq!(topics.topics.read().len(), MAX_TOPICS + 1);
        assert_eq!(topics.get(OTHER_TOPICS).produced_records.get(), 10);
        assert_eq!(topics.get("t5").produced_records.get(), 1);
    }

    #[test]
    fn a_forgotten_topic_makes_room() {
        let topics = Topics::default();
        topics.get("a").produced_records.inc();
        topics.forget("a");
        assert_eq!(topics.get("a").produced_records.get(), 0);
    }
}
