//! What a schedule is like: all of it follows from the seed.

use std::fmt;
use std::time::Duration;

use super::rng::Rng;

/// Settings of one schedule.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) brokers: i32,
    pub(crate) partitions: i32,
    pub(crate) replication_factor: i32,
    pub(crate) min_in_sync_replicas: i32,
    pub(crate) writers: u64,
    /// Longest time between two records of a writer.
    pub(crate) pace: Duration,
    /// Bytes of a value beyond its number.
    pub(crate) padding: usize,
    /// How long a producer tries to deliver.
    pub(crate) patience: Duration,
    /// How long a broker may be silent; other times of the cluster follow from it.
    pub(crate) session: Duration,
    /// Longest time that a message usually takes.
    pub(crate) latency: Duration,
    /// One message in so many breaks its link for a while; 0: none does.
    pub(crate) lost: u32,
    /// Mean time between faults.
    pub(crate) fault_every: Duration,
    /// How long faults go on.
    pub(crate) length: Duration,
}

impl Options {
    pub(crate) fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x0071_7e0f_7e0f);
        let mut one_of = |choices: &[u64]| choices[rng.index(choices.len())];
        let brokers = one_of(&[3, 3, 3, 4]) as i32;
        Self {
            seed,
            brokers,
            partitions: one_of(&[1, 2, 4]) as i32,
            replication_factor: 3,
            min_in_sync_replicas: one_of(&[1, 2, 2, 2]) as i32,
            writers: one_of(&[1, 2]),
            pace: Duration::from_millis(one_of(&[20, 60, 200])),
            padding: one_of(&[0, 100, 1_000, 8_000]) as usize,
            patience: Duration::from_millis(one_of(&[3_000, 10_000, 30_000])),
            session: Duration::from_millis(one_of(&[2_000, 2_000, 6_000])),
            latency: Duration::from_millis(one_of(&[5, 20, 100])),
            lost: one_of(&[0, 0, 1_000, 200]) as u32,
            fault_every: Duration::from_millis(one_of(&[700, 1_500, 4_000])),
            length: Duration::from_millis(one_of(&[10_000, 20_000, 30_000])),
        }
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
