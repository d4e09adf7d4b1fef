//! Durations as people write them: `90m`, `7d`, `1h30m`, and `forever` where a time limit may be absent.
//!
//! Invariant: every text that [`Duration::PATTERN`] matches is a duration, and the other way round, so that the schema
//! in the API server and this parser never disagree. [`Display`](fmt::Display) writes the shortest form that reads back
//! as the same value.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A unit: its suffix, its length in milliseconds, the most digits a number of it may have.
///
/// The digits bound every sum of all units below 2^63, so that no sum overflows.
const UNITS: [(&str, u64, usize); 6] =
    [("w", 7 * DAY, 5), ("d", DAY, 6), ("h", 3_600_000, 8), ("m", 60_000, 9), ("s", 1_000, 11), ("ms", 1, 15)];

const DAY: u64 = 86_400_000;

/// A length of time, in whole milliseconds, at most [`Duration::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Duration {
    ms: u64,
}

/// How long to keep something: for a time, or for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Retention {
    /// At least so long.
    For(Duration),
    /// Without a time limit; written `forever`.
    Forever,
}

/// The text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a duration: write numbers with units from the largest to the smallest, such as 90m, 7d or 1h30m")]
pub struct DurationFault;

/// The text is neither a duration nor `forever`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "neither a duration nor forever: write numbers with units from the largest to the smallest, such as 90m, 7d or \
     1h30m, or the word forever"
)]
pub struct RetentionFault;

impl Duration {
    /// The regular expression of the texts that are durations. The schema also asks for one character at least.
    pub const PATTERN: &str =
        "^([0-9]{1,5}w)?([0-9]{1,6}d)?([0-9]{1,8}h)?([0-9]{1,9}m)?([0-9]{1,11}s)?([0-9]{1,15}ms)?$";

    /// 100,000 days (273 years). A longer one counts as this.
    pub const MAX: Self = Self { ms: 100_000 * DAY };

    /// A duration of so many milliseconds, or [`Duration::MAX`] if that is less.
    pub const fn from_millis(ms: u64) -> Self {
        if ms > Self::MAX.ms { Self::MAX } else { Self { ms } }
    }

    /// Milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.ms
    }

    /// The same as the standard library's type.
    pub const fn as_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.ms)
    }
}

impl Retention {
    /// The regular expression of the texts that are retentions.
    pub const PATTERN: &str =
        "^(forever|([0-9]{1,5}w)?([0-9]{1,6}d)?([0-9]{1,8}h)?([0-9]{1,9}m)?([0-9]{1,11}s)?([0-9]{1,15}ms)?)$";

    /// So many milliseconds; more than [`Duration::MAX`] is for ever.
    pub const fn from_millis(ms: u64) -> Self {
        if ms > Duration::MAX.ms { Self::Forever } else { Self::For(Duration { ms }) }
    }

    /// Milliseconds; `None` is for ever.
    pub const fn as_millis(self) -> Option<u64> {
        match self {
            Self::For(duration) => Some(duration.ms),
            Self::Forever => None,
        }
    }
}

/// Milliseconds of a text of the grammar; the sum is not limited to [`Duration::MAX`].
fn parse_millis(text: &str) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let mut units = UNITS.iter();
    let mut rest = text;
    let mut total = 0;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (suffix, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
        // `find` uses the units up: each at most once, from the largest to the smallest.
        let (_, ms, digits) = units.find(|(name, _, _)| *name == suffix)?;
        if number.len() > *digits {
            return None;
        }
        total += number.parse::<u64>().ok()? * ms;
        rest = tail;
    }
    Some(total)
}

impl FromStr for Duration {
    type Err = DurationFault;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_millis(text).map(Self::from_millis).ok_or(DurationFault)
    }
}

impl FromStr for Retention {
    type Err = RetentionFault;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "forever" {
            return Ok(Self::Forever);
        }
        parse_millis(text).map(Self::from_millis).ok_or(RetentionFault)
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ms == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.ms;
        // Weeks are read but not written: 7d says more than 1w next to 30d.
        for (suffix, ms, _) in &UNITS[1..] {
            if rest >= *ms {
                write!(f, "{}{suffix}", rest / ms)?;
                rest %= ms;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For(duration) => duration.fmt(f),
            Self::Forever => f.write_str("forever"),
        }
    }
}

impl TryFrom<String> for Duration {
    type Error = DurationFault;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl TryFrom<String> for Retention {
    type Error = RetentionFault;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Duration> for String {
    fn from(duration: Duration) -> Self {
        duration.to_string()
    }
}

impl From<Retention> for String {
    fn from(retention: Retention) -> Self {
        retention.to_string()
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": Self::PATTERN, "minLength": 2, "maxLength": 64 })
    }
}

impl JsonSchema for Retention {
    fn schema_name() -> Cow<'static, str> {
        "Retention".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": Self::PATTERN, "minLength": 2, "maxLength": 64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        for (text, ms) in [
            ("7d", 7 * DAY),
            ("2w", 14 * DAY),
            ("90m", 90 * 60_000),
            ("1h30m", 90 * 60_000),
            ("36h15s", 36 * 3_600_000 + 15_000),
            ("250ms", 250),
            ("1m1ms", 60_001),
            ("0s", 0),
            ("007d", 7 * DAY),
        ] {
            assert_eq!(text.parse::<Duration>().map(Duration::as_millis), Ok(ms), "{text}");
            assert_eq!(text.parse::<Retention>().map(Retention::as_millis), Ok(Some(ms)), "{text}");
        }
        assert_eq!("forever".parse(), Ok(Retention::Forever));
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in ["", "7", "d", "7 d", " 7d", "7D", "-1d", "+1d", "1.5h", "1d1d", "1s1h", "1y", "7d!", "٣d", "1dd"]
        {
            assert_eq!(text.parse::<Duration>(), Err(DurationFault), "{text:?}");
            assert_eq!(text.parse::<Retention>(), Err(RetentionFault), "{text:?}");
        }
        assert!("forever".parse::<Duration>().is_err());
        assert!("9999999d".parse::<Duration>().is_err(), "too many digits");
    }

    #[test]
    fn more_than_the_maximum_counts_as_the_maximum_or_as_for_ever() {
        assert_eq!("100001d".parse::<Duration>(), Ok(Duration::MAX));
        assert_eq!("100001d".parse::<Retention>(), Ok(Retention::Forever));
        let most = "99999w999999d99999999h999999999m99999999999s999999999999999ms";
        assert!(most.len() <= 64, "fits the schema's maxLength");
        assert_eq!(most.parse::<Retention>(), Ok(Retention::Forever));
    }

    proptest! {
        #[test]
        fn display_reads_back_as_the_same_value(ms in 0..=Duration::MAX.ms) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(duration.to_string().parse::<Duration>(), Ok(duration));
            let retention = Retention::from_millis(ms);
            prop_assert_eq!(retention.to_string().parse::<Retention>(), Ok(retention));
        }

        #[test]
        fn any_text_is_a_duration_or_a_fault_and_never_a_panic(text in "[0-9wdhms]{0,12}|\\PC{0,12}") {
            let _ = text.parse::<Duration>();
            let _ = text.parse::<Retention>();
        }
    }
}
