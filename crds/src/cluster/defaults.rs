//! What holds for topics that do not say otherwise.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::replicas;
use crate::topic::{MAX_REPLICATION_FACTOR, Survives, TopicConfig};

/// What holds for a topic of the cluster that does not say otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = replicas::enough_for_min_isr(),
    validation = replicas::more_than_one_to_survive(),
    validation = replicas::more_than_min_isr_to_survive()
)]
pub struct TopicDefaults {
    /// Number of replicas of each partition, from 1 to 7, not above the number of brokers. Default: 3, or the number of
    /// brokers if that is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_REPLICATION_FACTOR))]
    pub replication_factor: Option<i32>,

    /// What topics must survive that do not say so themselves. Default: nothing is declared.
    // The schema of an optional enum takes its description from the type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub survives: Option<Survives>,

    /// How records are kept and checked: each field is taken by topics that do not set it.
    #[serde(default)]
    pub config: TopicConfig,
}
