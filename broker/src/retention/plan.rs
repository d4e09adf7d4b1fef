//! Which records retention gives up: pure decisions over a log's spans. Age goes by log time (Q2).

use std::time::Duration;

use crate::storage::Span;
use crate::topics::Settings;

/// Of all that is stored, what may be given up for its age in one round is one part of so many, so that a fault in the
/// counting of time is seen before all is gone (Q2).
const AGED_SHARE: u64 = 4;
/// But at least this many bytes of a broker: small logs need no protection from their settings.
const AGED_AT_LEAST: u64 = 4 << 30;
/// Wall and boot time may part by this much between two rounds before it counts as a jump: far above what keeping a clock
/// in step does, far below what matters to retention.
const JUMP: Duration = Duration::from_mins(5);
/// After a jump nothing is given up for its age for this long, time for a person to look.
pub const HOLD: Duration = Duration::from_hours(1);

/// What is known of one log.
#[derive(Clone, Copy, Debug)]
pub struct LogState<'a> {
    /// Its sealed parts, in offset order.
    pub spans: &'a [Span],
    /// Bytes of all its batches.
    pub size: u64,
    /// First offset that is there.
    pub log_start: i64,
    /// Nothing at or above this goes: the smaller of high watermark and last stable offset (Q3).
    pub bound: i64,
}

/// New log start, and what goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    /// First offset to keep.
    pub to: i64,
    /// Bytes given up for their age.
    pub aged_bytes: u64,
}

/// What to give up of a log at log time `now` (milliseconds): whole spans from the front that are older than the topic's
/// retention, as far as `aged_budget` bytes go, and then those beyond its size, of which it keeps at least that much. `None`: nothing.
pub fn plan(log: &LogState<'_>, settings: &Settings, now: i64, aged_budget: u64) -> Option<Trim> {
    let (mut size, mut trim) = (log.size, None);
    let mut aged_bytes = 0;
    for span in log.spans.iter().filter(|span| span.last >= log.log_start) {
        let is_old = settings.retention_ms.is_some_and(|ms| now.saturating_sub(span.max_append_time) > ms);
        let aged = is_old && aged_bytes + span.bytes <= aged_budget;
        let too_much = settings.retention_bytes.is_some_and(|most| size.saturating_sub(span.bytes) >= most);
        if span.last >= log.bound || !(aged || too_much) {
            break;
        }
        size = size.saturating_sub(span.bytes);
        aged_bytes += if too_much { 0 } else { span.bytes };
        trim = Some(Trim { to: span.last + 1, aged_bytes });
    }
    trim
}

/// Bytes that one round may give up for their age, of `stored` bytes in all logs.
pub fn aged_budget(stored: u64) -> u64 {
    (stored / AGED_SHARE).max(AGED_AT_LEAST)
}

/// Notices when the wall clock jumps. Log time does not follow such a jump; that somebody set the clock is still reason to
/// stop and look before old records go (Q2).
#[derive(Clone, Copy, Debug, Default)]
pub struct JumpGuard {
    last: Option<(i64, Duration)>,
    held_until: Option<Duration>,
}

impl JumpGuard {
    /// Takes note of the clocks at a round: wall time (milliseconds) and time since boot. Answers by how much the wall clock
    /// jumped since the last round, if it did.
    pub fn observe(&mut self, wall: i64, since_boot: Duration) -> Option<i64> {
        let last = self.last.replace((wall, since_boot));
        let (last_wall, last_boot) = last?;
        let passed = since_boot.saturating_sub(last_boot).as_millis() as i64;
        let jump = wall.saturating_sub(last_wall).saturating_sub(passed);
        if jump.unsigned_abs() <= JUMP.as_millis() as u64 {
            return None;
        }
        self.held_until = Some(since_boot + HOLD);
        Some(jump)
    }

    /// Nothing may be given up for its age now.
    pub fn holds(&self, since_boot: Duration) -> bool {
        self.held_until.is_some_and(|until| since_boot < until)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use taffrail_proto::record::TimestampType;

    use super::*;
    use crate::storage::Durability;

    fn settings(retention_ms: Option<i64>, retention_bytes: Option<u64>) -> Settings {
        Settings {
            max_message_bytes: 1 << 20,
            timestamp_type: TimestampType::CreateTime,
            durability: Durability::Os,
            retention_ms,
            retention_bytes,
        }
    }

    /// Spans of ten records and 100 bytes each, appended at the given times.
    fn spans(append_times: &[i64]) -> Vec<Span> {
        let span = |(i, &max_append_time): (usize, &i64)| {
            let first = i as i64 * 10;
            Span { first, last: first + 9, bytes: 100, max_append_time, max_timestamp: i64::MAX }
        };
        append_times.iter().enumerate().map(span).collect()
    }

    fn trim_to(times: &[i64], settings: &Settings, now: i64, bound: i64) -> Option<i64> {
        let spans = spans(times);
        let log = LogState { spans: &spans, size: 100 * spans.len() as u64, log_start: 0, bound };
        plan(&log, settings, now, u64::MAX).map(|trim| trim.to)
    }

    #[test]
    fn spans_older_than_the_retention_go_by_append_time() {
        let week = settings(Some(700), None);
        assert_eq!(trim_to(&[0, 100, 200], &week, 700, 30), None, "as old as the retention is not older");
        assert_eq!(trim_to(&[0, 100, 200], &week, 701, 30), Some(10));
        assert_eq!(trim_to(&[0, 100, 200], &week, 10_000, 30), Some(30));
        assert_eq!(trim_to(&[500, 0, 0], &week, 1_000, 30), None, "what follows a younger span stays");
        assert_eq!(trim_to(&[0, 0, 0], &settings(None, None), i64::MAX, 30), None);
    }

    #[test]
    fn q3_nothing_at_or_above_the_bound_goes() {
        for bound in 0..=30 {
            let to = trim_to(&[0, 0, 0], &settings(Some(1), Some(1)), 100, bound);
            assert!(to.is_none_or(|to| to <= bound), "{to:?} for {bound}");
        }
        assert_eq!(trim_to(&[0, 0, 0], &settings(Some(1), None), 100, 29), Some(20));
    }

    #[test]
    fn size_keeps_at_least_what_was_asked_for() {
        assert_eq!(trim_to(&[0, 0, 0], &settings(None, Some(200)), 1, 30), Some(10));
        assert_eq!(trim_to(&[0, 0, 0], &settings(None, Some(201)), 1, 30), None);
        assert_eq!(trim_to(&[0, 0, 0], &settings(None, Some(1)), 1, 30), Some(20));
    }

    #[test]
    fn spans_below_the_log_start_are_gone_already() {
        let spans = spans(&[0, 0, 500]);
        let log = LogState { spans: &spans, size: 100, log_start: 20, bound: 30 };
        assert_eq!(plan(&log, &settings(Some(100), Some(100)), 400, u64::MAX), None);
    }

    #[test]
    fn q2_age_is_limited_by_the_budget_and_size_is_not() {
        let spans = spans(&[0, 0, 0]);
        let log = LogState { spans: &spans, size: 300, log_start: 0, bound: 30 };
        let aged = plan(&log, &settings(Some(1), None), 100, 250);
        assert_eq!(aged, Some(Trim { to: 20, aged_bytes: 200 }));
        let large = plan(&log, &settings(None, Some(100)), 100, 0);
        assert_eq!(large, Some(Trim { to: 20, aged_bytes: 0 }));
    }

    #[test]
    fn q2_a_wall_clock_that_jumps_either_way_holds_deletion() {
        for jump in [30 * 86_400_000, -30 * 86_400_000] {
            let (mut guard, minute) = (JumpGuard::default(), Duration::from_mins(1));
            assert_eq!(guard.observe(1_000, minute), None);
            assert_eq!(guard.observe(61_000, minute * 2), None);
            assert!(!guard.holds(minute * 2));
            assert_eq!(guard.observe(121_000 + jump, minute * 3), Some(jump));
            assert!(guard.holds(minute * 3 + HOLD / 2));
            assert!(!guard.holds(minute * 3 + HOLD));
        }
    }

    proptest! {
        #[test]
        fn q2_no_record_younger_than_the_retention_goes_for_its_age(
            ages in prop::collection::vec(0i64..1_000, 0..20), retention in 0i64..1_000, bound in 0i64..200,
        ) {
            let times: Vec<_> = ages.iter().map(|age| 1_000 - age).collect();
            let to = trim_to(&times, &settings(Some(retention), None), 1_000, bound).unwrap_or(0);
            for (i, age) in ages.iter().enumerate().filter(|(i, _)| (*i as i64) * 10 < to) {
                prop_assert!(*age > retention, "span {} of age {}", i, age);
            }
            prop_assert!(to <= bound);
        }
    }
}
