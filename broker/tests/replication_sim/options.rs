//! What a schedule is like: all of it follows from the seed.

use std::fmt;

use super::planted::Planted;
use super::rng::Rng;

/// Rates at which clocks of brokers run, in thousandths: all alike; as far apart as a Lease of 6 s allows that is not used for
/// longer than 4 s; twice as fast.
const ALIKE: &[u64] = &[1_000];
const WITHIN_LEASE: &[u64] = &[820, 1_000, 1_225];
const TWICE: &[u64] = &[710, 1_000, 1_415];

/// Settings of one schedule.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    /// A fault that is put in on purpose.
    pub(crate) planted: Option<Planted>,
    pub(crate) brokers: i32,
    pub(crate) partitions: i32,
    pub(crate) replication_factor: i32,
    pub(crate) min_in_sync_replicas: i32,
    /// Never more than `min_in_sync_replicas` − 1 replicas have lost records at once: then no acknowledged one may be (L4).
    pub(crate) careful: bool,
    /// There are more brokers than replicas, some go and come back for good, and replicas move.
    pub(crate) moves: bool,
    pub(crate) producers: usize,
    /// Longest time between batches of one producer while things go wrong, in milliseconds.
    pub(crate) pace: u64,
    /// Batches of one producer under way.
    pub(crate) in_flight: usize,
    /// One message in so many is lost, comes twice, is late by seconds.
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) late: u64,
    /// Most batches in one answer to a follower.
    pub(crate) answer_batches: usize,
    /// Longest time that a message usually takes, in microseconds.
    pub(crate) latency: u64,
    /// Longest time that a write to a log usually takes, in microseconds.
    pub(crate) write_time: u64,
    /// Time between syncs of a broker's disk, in milliseconds.
    pub(crate) sync_every: u64,
    /// Longest time that a watch usually takes, in milliseconds.
    pub(crate) watch_lag: u64,
    /// One call of the API in so many has an answer that is lost; as many do not get there.
    pub(crate) api_lost: u64,
    /// Mean time between faults, in milliseconds.
    pub(crate) fault_every: u64,
    /// How long faults go on, in milliseconds.
    pub(crate) length: u64,
    /// What the API does besides losing calls.
    pub(crate) api: ApiFaults,
    /// Each broker's clock runs at one of these rates, in thousandths. More than one: wall clocks jump, too, and controllers are
    /// elected by the real election.
    pub(crate) clock_rates: &'static [u64],
}

/// What the API does wrong that it did not always do here.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ApiFaults {
    /// It refuses calls for some time (429), and forgets where watches are (410).
    pub(crate) refuses: bool,
    /// It goes back in time, once nothing else is wrong but messages and calls.
    pub(crate) rewinds: bool,
}

impl Options {
    /// What goes wrong with the API and with clocks besides: drawn apart, as it came later. A schedule without it is what it was
    /// before, and so is one of a planted fault that does not need it.
    pub(crate) fn of(seed: u64, planted: Option<Planted>) -> Self {
        let all = Self::with_moves(seed, planted);
        let mut rng = Rng::new(seed ^ 0x0c10_c4a9_1429);
        let clock_rates = [ALIKE, ALIKE, ALIKE, WITHIN_LEASE, TWICE][rng.index(5)];
        match planted {
            None => {
                let (refuses, rewinds) = (rng.once_in(3), rng.once_in(3));
                let rewinds = rewinds && !all.moves && clock_rates == ALIKE;
                Self { api: ApiFaults { refuses, rewinds }, ..all }.with_rates(clock_rates)
            }
            Some(Planted::NotListedAnew) => Self { api: ApiFaults { refuses: true, rewinds: false }, ..all },
            Some(Planted::OlderMetadataObeyed) => {
                Self { api: ApiFaults { refuses: false, rewinds: true }, moves: false, ..all }
            }
            Some(Planted::LeaseByWallClock) => all.with_rates(WITHIN_LEASE),
            Some(_) => all,
        }
    }

    /// A quarter of the schedules has moves: drawn apart, so that the others are what they would be without.
    pub(crate) fn with_moves(seed: u64, planted: Option<Planted>) -> Self {
        let mut rng = Rng::new(seed ^ 0x3a71_0b1d);
        let moves = rng.once_in(4) || planted == Some(Planted::MovedBeforeCaughtUp);
        let more = 1 + rng.index(2) as i32;
        let all = Self::without_moves(seed, planted);
        let brokers = if moves { all.brokers.max(all.replication_factor + more) } else { all.brokers };
        Self { brokers, moves, ..all }
    }

    /// The same, and replicas stay where they are.
    pub(crate) fn without_moves(seed: u64, planted: Option<Planted>) -> Self {
        let mut rng = Rng::new(seed ^ 0x5eed_0f0b_7105);
        let mut one_of = |choices: &[u64]| choices[rng.index(choices.len())];
        let replication_factor = one_of(&[2, 3, 3, 3, 3, 4, 5]) as i32;
        let min_in_sync_replicas = match replication_factor {
            2 => one_of(&[1, 1, 2]),
            3 => one_of(&[1, 2, 2, 2, 2, 3]),
            4 => one_of(&[2, 3]),
            _ => one_of(&[2, 3, 3]),
        } as i32;
        let brokers = replication_factor.max(one_of(&[3, 3, 4, 5]) as i32);
        Self {
            seed,
            planted,
            brokers,
            moves: false,
            partitions: one_of(&[1, 1, 2]) as i32,
            replication_factor,
            min_in_sync_replicas,
            careful: one_of(&[0, 1, 1]) == 1,
            producers: one_of(&[1, 2, 3]) as usize,
            pace: one_of(&[100, 200, 1_000, 5_000]),
            in_flight: one_of(&[1, 2, 4]) as usize,
            answer_batches: one_of(&[1, 3, 50]) as usize,
            lost: one_of(&[30, 100, 400, 1_000_000]),
            doubled: one_of(&[30, 200, 1_000_000]),
            late: one_of(&[40, 200, 1_000_000]),
            latency: one_of(&[500, 2_000, 20_000, 200_000]),
            write_time: one_of(&[200, 2_000, 20_000, 300_000]),
            sync_every: one_of(&[500, 3_000, 20_000]),
            watch_lag: one_of(&[10, 200, 3_000, 8_000]),
            api_lost: one_of(&[6, 20, 1_000_000]),
            fault_every: one_of(&[700, 1_500, 3_000, 8_000]),
            length: one_of(&[30_000, 60_000, 90_000]),
            api: ApiFaults::default(),
            clock_rates: ALIKE,
        }
    }

    /// With clocks that run at these rates. One that runs fast finds slow what is not: then nothing usually takes so long that a
    /// leader by such a clock would not wait for a replica that joins.
    fn with_rates(self, clock_rates: &'static [u64]) -> Self {
        let mut next = Self { clock_rates, ..self };
        if next.clocks_differ() {
            (next.latency, next.write_time) = (next.latency.min(100_000), next.write_time.min(100_000));
        }
        next
    }

    /// Clocks do not run alike.
    pub(crate) fn clocks_differ(&self) -> bool {
        self.clock_rates.len() > 1
    }

    /// No clock runs so much faster than another that a Lease expires for its owner while its holder goes by it.
    pub(crate) fn lease_holds(&self) -> bool {
        let (slowest, fastest) = (self.clock_rates.iter().min(), self.clock_rates.iter().max());
        slowest.zip(fastest).is_some_and(|(slowest, fastest)| 2 * fastest <= 3 * slowest)
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
