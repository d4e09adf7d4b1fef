//! What is counted of consumer groups, and shown of them and their coordinators. Label sets are bounded.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

/// Groups with series of their own.
pub const MAX_GROUPS: usize = 1_000;
/// Partitions of groups with series of their own.
pub const MAX_GROUP_PARTITIONS: usize = 10_000;

/// Numbers that the service of groups counts.
#[derive(Clone, Debug, Default)]
pub struct GroupMetrics {
    /// Offsets that were committed.
    pub commits: Counter,
    /// Times that a group's assignment was made anew.
    pub rebalances: Counter,
}

impl GroupMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let new = Self::default();
        registry.register("group_commits", "Offsets committed by consumer groups", new.commits.clone());
        let help = "Times that the assignment of a consumer group was made anew, as far as seen every ten seconds";
        registry.register("group_rebalances", help, new.rebalances.clone());
        new
    }
}

/// A group at a scrape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSample {
    /// Its id.
    pub group: Arc<str>,
    /// How many.
    pub members: usize,
    /// Partitions with what the group has still to read of them.
    pub lag: Vec<(Arc<str>, i32, i64)>,
}

/// A coordinator at a scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoordinatorSample {
    /// It answers.
    pub serves: bool,
    /// What the last load took.
    pub load: Duration,
    /// Bytes of its log.
    pub log_bytes: u64,
    /// Checkpoints that it has finished since the start.
    pub checkpoints: u64,
}

/// All groups and coordinators at a scrape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupsSample {
    /// How many groups are in which state.
    pub states: Vec<(&'static str, usize)>,
    /// At most [`MAX_GROUPS`].
    pub groups: Vec<GroupSample>,
    /// By shard.
    pub coordinators: Vec<CoordinatorSample>,
}

/// Tells the state of the groups.
pub type GroupSource = Box<dyn Fn() -> GroupsSample + Send + Sync>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupLabels {
    group: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LagLabels {
    group: String,
    topic: String,
    partition: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShardLabels {
    shard: u32,
}

/// Collector that asks a [`GroupSource`] at each scrape.
pub(super) struct GroupCollector(pub(super) GroupSource);

impl fmt::Debug for GroupCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupCollector")
    }
}

fn family<L: EncodeLabelSet, V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<&Unit>),
    values: impl IntoIterator<Item = (L, V)>,
) -> fmt::Result
where
    ConstGauge<V>: EncodeMetric,
{
    let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

impl Collector for GroupCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let sample = (self.0)();
        let e = &mut encoder;
        let states = sample.states.iter().map(|(state, count)| (StateLabels { state }, *count as i64));
        family(e, ("groups", "Consumer groups by state", None), states)?;
        let label = |group: &GroupSample| GroupLabels { group: group.group.to_string() };
        let members = sample.groups.iter().map(|group| (label(group), group.members as i64));
        family(e, ("group_members", "Members of a consumer group", None), members)?;
        let lag = sample.groups.iter().flat_map(|group| {
            group.lag.iter().map(|(topic, partition, lag)| {
                let (group, topic) = (group.group.to_string(), topic.to_string());
                (LagLabels { group, topic, partition: *partition }, *lag)
            })
        });
        let help = "Records between what a consumer group has committed and the high watermark";
        family(e, ("group_lag", help, None), lag.take(MAX_GROUP_PARTITIONS))?;
        let shards = || (0..).map(|shard| ShardLabels { shard }).zip(&sample.coordinators);
        let serves = shards().map(|(shard, coordinator)| (shard, i64::from(coordinator.serves)));
        family(e, ("coordinator_serving", "1 while a shard of the group coordinator answers", None), serves)?;
        let load = shards().map(|(shard, coordinator)| (shard, coordinator.load.as_secs_f64()));
        let help = "Time that the last load of a shard of the group coordinator took";
        family(e, ("coordinator_load", help, Some(&Unit::Seconds)), load)?;
        let bytes = shards().map(|(shard, coordinator)| (shard, coordinator.log_bytes as i64));
        let help = "Bytes of the log of a shard of the group coordinator";
        family(e, ("coordinator_log", help, Some(&Unit::Bytes)), bytes)?;
        let checkpoints = shards().map(|(shard, coordinator)| (shard, coordinator.checkpoints as i64));
        let help = "Checkpoints that a shard of the group coordinator has finished since the start";
        family(e, ("coordinator_checkpoints", help, None), checkpoints)
    }
}
