//! How fast replicas that are not in sync may be copied: a bucket of bytes that fills at that rate. No task, no clock: time is
//! passed in.
//!
//! Bytes are set aside when they are asked for and settled when they have come, so that however many replicas ask at once, no
//! more is under way than the rate allows. What came beyond what was asked for, a batch is never cut, is a debt that is paid
//! off before anything else is asked for.

use std::time::Duration;

/// What may be copied at once after a time in which nothing was, as a share of a second.
const BURST: u64 = 4;
const NANOS: i128 = 1_000_000_000;

/// See the module.
#[derive(Debug)]
pub struct Bucket {
    /// Bytes a second.
    rate: u64,
    /// Bytes that may be asked for, times [`NANOS`]: no part of a byte is lost, however often it is looked at. Negative: debt.
    level: i128,
    /// When that was so.
    at: Duration,
}

impl Bucket {
    /// A full one. At least a byte a second.
    pub fn new(rate: u64, now: Duration) -> Self {
        let mut bucket = Self { rate: rate.max(1), level: 0, at: now };
        bucket.level = bucket.most();
        bucket
    }

    /// Fills at another rate from now on.
    pub fn set_rate(&mut self, rate: u64, now: Duration) {
        self.fill(now);
        self.rate = rate.max(1);
        self.level = self.level.min(self.most());
    }

    /// Sets bytes aside, more than there are if need be: a large demand is not put off for smaller ones. `Err`: not before this
    /// much time has passed.
    pub fn take(&mut self, bytes: u64, now: Duration) -> Result<(), Duration> {
        self.fill(now);
        if self.level > 0 {
            self.level -= i128::from(bytes) * NANOS;
            return Ok(());
        }
        let nanos = (1 - self.level).div_euclid(i128::from(self.rate)) + 1;
        Err(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// Of the bytes that were set aside so many have come: the rest is given back, or what came beyond is owed.
    pub fn settle(&mut self, taken: u64, used: u64, now: Duration) {
        self.fill(now);
        self.level += (i128::from(taken) - i128::from(used)) * NANOS;
        self.level = self.level.min(self.most());
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        let nanos = i128::try_from(passed.as_nanos()).unwrap_or(i128::MAX);
        let filled = i128::from(self.rate).saturating_mul(nanos);
        self.level = self.level.saturating_add(filled).min(self.most());
    }

    fn most(&self) -> i128 {
        i128::from((self.rate / BURST).max(1)) * NANOS
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn after_a_pause_a_part_of_a_second_is_there_at_once_and_then_the_rate() {
        let mut bucket = Bucket::new(8 * MIB, at(0));
        let now = at(60_000);
        assert_eq!((bucket.take(MIB, now), bucket.take(MIB, now)), (Ok(()), Ok(())), "a quarter of a second");
        let wait = bucket.take(MIB, now).unwrap_err();
        assert!(wait <= Duration::from_micros(1), "{wait:?}: what is there is used up, and nothing is owed");
        assert_eq!(bucket.take(MIB, now + wait), Ok(()));
        let wait = bucket.take(MIB, now + wait).unwrap_err();
        assert!(wait.abs_diff(at(125)) < at(1), "{wait:?}");
    }

    #[test]
    fn what_did_not_come_is_given_back_and_what_came_beyond_is_owed() {
        let mut bucket = Bucket::new(4 * MIB, at(0));
        assert_eq!(bucket.take(MIB, at(0)), Ok(()));
        bucket.settle(MIB, MIB - 8, at(0));
        assert_eq!(bucket.take(MIB, at(0)), Ok(()), "some is left");
        bucket.settle(MIB, 9 * MIB, at(0));
        let wait = bucket.take(1, at(0)).unwrap_err();
        assert!(wait.abs_diff(at(2_250)) < at(1), "{wait:?}: nine mebibytes");
    }

    #[test]
    fn another_rate_holds_at_once_for_those_who_wait() {
        let mut bucket = Bucket::new(MIB, at(0));
        assert_eq!(bucket.take(11 * MIB, at(0)), Ok(()));
        assert!(bucket.take(1, at(0)).unwrap_err() > at(10_000));
        bucket.set_rate(100 * MIB, at(0));
        assert!(bucket.take(1, at(0)).unwrap_err() < at(110));
        bucket.set_rate(0, at(0));
        assert!(bucket.take(1, at(0)).is_err(), "and no rate ends it");
    }

    proptest! {
        /// However demands come and are answered: in any stretch of time no more comes than the rate, what a pause lets
        /// gather, one demand and what the answers had beyond their demands; and whoever waits as long as is said goes on.
        #[test]
        fn no_more_than_the_rate_comes_and_nobody_starves(
            rate in 1_u64..200 * MIB,
            steps in prop::collection::vec((0_u64..300_000, 1_u64..=MIB, 0_u64..=2 * MIB, any::<bool>()), 1..200),
        ) {
            let (mut bucket, mut now) = (Bucket::new(rate, Duration::ZERO), Duration::ZERO);
            let (mut came, mut beyond) = (0_u128, 0_u128);
            for (micros, bytes, used, at_once) in steps {
                now += Duration::from_micros(micros);
                // Whoever looks often loses nothing by it.
                for _ in 0..3 {
                    bucket.settle(0, 0, now);
                }
                if let Err(wait) = bucket.take(bytes, now) {
                    let before = wait.saturating_sub(Duration::from_nanos(2));
                    prop_assert!(bucket.take(bytes, now + before.mul_f64(0.999)).is_err(), "not sooner than is said");
                    now += wait;
                    prop_assert_eq!(bucket.take(bytes, now), Ok(()), "waited {:?}", wait);
                }
                if at_once {
                    now += Duration::from_micros(7);
                }
                bucket.settle(bytes, used, now);
                came += u128::from(used);
                beyond = beyond.max(u128::from(used.saturating_sub(bytes)));
                let allowed = u128::from(rate) * now.as_nanos() / NANOS as u128 + u128::from(rate / BURST)
                    + u128::from(MIB) + beyond + 2;
                prop_assert!(came <= allowed, "{came} bytes in {now:?} at {rate} a second, of {allowed}");
            }
        }
    }
}
