//! Amounts of processor as people write them: `2`, `1.5`, `500m`, as Kubernetes' quantities.
//!
//! Invariant: every text that [`Cpu::PATTERN`] matches is an amount, and the other way round.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// An amount of processor, in thousandths of one, at most [`Cpu::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpu {
    millis: u32,
}

/// The text is no amount of processor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an amount of processor: write a number such as 2 or 1.5, or thousandths such as 500m")]
pub struct CpuFault;

impl Cpu {
    /// The regular expression of the texts that are amounts.
    pub const PATTERN: &str = r"^([0-9]{1,4}(\.[0-9]{1,3})?|[0-9]{1,7}m)$";

    /// 9,999.999 processors.
    pub const MAX: Self = Self { millis: 9_999_999 };

    /// Thousandths of a processor.
    pub const fn as_millis(self) -> u32 {
        self.millis
    }
}

impl FromStr for Cpu {
    type Err = CpuFault;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |digits: &str, most: usize| {
            let good = (1..=most).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
            good.then(|| digits.parse::<u32>().ok()).flatten().ok_or(CpuFault)
        };
        if let Some(millis) = text.strip_suffix('m') {
            return Ok(Self { millis: number(millis, 7)? });
        }
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let scale = [0, 100, 10, 1][fraction.len().min(3)];
        Ok(Self { millis: number(whole, 4)? * 1000 + number(fraction, 3)? * scale })
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.millis.is_multiple_of(1000) {
            write!(f, "{}", self.millis / 1000)
        } else {
            write!(f, "{}m", self.millis)
        }
    }
}

impl Serialize for Cpu {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

struct CpuVisitor;

impl Visitor<'_> for CpuVisitor {
    type Value = Cpu;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an amount of processor such as 2 or 500m")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Cpu, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Cpu, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Cpu, E> {
        self.visit_str(&number.to_string())
    }
}

impl<'de> Deserialize<'de> for Cpu {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CpuVisitor)
    }
}

impl JsonSchema for Cpu {
    fn schema_name() -> Cow<'static, str> {
        "Cpu".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // A fraction is written as text: the type of the field is "number of whole processors, or text".
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "pattern": Self::PATTERN,
            "maxLength": 8,
            "minimum": 0,
            "maximum": 9_999,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        for (text, millis) in [("2", 2_000), ("1.5", 1_500), ("0.05", 50), ("0.125", 125), ("500m", 500), ("0", 0)] {
            assert_eq!(text.parse::<Cpu>().map(Cpu::as_millis), Ok(millis), "{text}");
        }
        assert_eq!(serde_json::from_str::<Cpu>("4").map(Cpu::as_millis).ok(), Some(4_000));
        for text in ["", "m", "1.", ".5", "1.0000", "-1", "1k", "12345", "1.5m", "٣"] {
            assert_eq!(text.parse::<Cpu>(), Err(CpuFault), "{text:?}");
        }
        assert_eq!("9999999m".parse(), Ok(Cpu::MAX));
    }

    proptest! {
        #[test]
        fn display_reads_back_as_the_same_value(millis in 0..=Cpu::MAX.millis) {
            let cpu = Cpu { millis };
            prop_assert_eq!(cpu.to_string().parse::<Cpu>(), Ok(cpu));
        }
    }
}
