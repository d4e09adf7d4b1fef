//! Numbers of bytes as people write them: `10Gi`, `500M`, or a plain number, as Kubernetes' quantities without fractions.
//!
//! Invariant: every text that [`Size::PATTERN`] matches is a size, and the other way round, so that the schema in the
//! API server and this parser never disagree. [`Display`](fmt::Display) writes a form that reads back as the same value.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// A unit: its suffix, its bytes, the most digits a number of it may have (which bounds the product by [`Size::MAX`]).
/// Ordered by how well they read; the first that divides a size without rest writes it.
const UNITS: [(&str, u64, usize); 11] = [
    ("Pi", 1 << 50, 2),
    ("Ti", 1 << 40, 5),
    ("Gi", 1 << 30, 8),
    ("Mi", 1 << 20, 11),
    ("Ki", 1 << 10, 14),
    ("P", 1_000_000_000_000_000, 2),
    ("T", 1_000_000_000_000, 5),
    ("G", 1_000_000_000, 8),
    ("M", 1_000_000, 11),
    ("k", 1_000, 14),
    ("", 1, 18),
];

/// A number of bytes, at most [`Size::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size {
    bytes: u64,
}

/// The text is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a size: write a whole number of bytes, or one with k, M, G, T, P (1000) or Ki, Mi, Gi, Ti, Pi (1024), such as 10Gi"
)]
pub struct SizeFault;

impl Size {
    /// The regular expression of the texts that are sizes.
    pub const PATTERN: &str =
        "^([0-9]{1,18}|[0-9]{1,14}(k|Ki)|[0-9]{1,11}(M|Mi)|[0-9]{1,8}(G|Gi)|[0-9]{1,5}(T|Ti)|[0-9]{1,2}(P|Pi))$";

    /// 10^18 − 128 bytes: the largest bound below 10^18 that a schema can hold, since it holds bounds in doubles. A
    /// larger number of 18 digits counts as this.
    pub const MAX: Self = Self { bytes: 999_999_999_999_999_872 };

    /// So many bytes, or [`Size::MAX`] if that is less.
    pub const fn from_bytes(bytes: u64) -> Self {
        if bytes > Self::MAX.bytes { Self::MAX } else { Self { bytes } }
    }

    /// Bytes.
    pub const fn as_bytes(self) -> u64 {
        self.bytes
    }
}

impl FromStr for Size {
    type Err = SizeFault;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, suffix) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let (_, unit, digits) = UNITS.iter().find(|(name, _, _)| *name == suffix).ok_or(SizeFault)?;
        if number.is_empty() || number.len() > *digits {
            return Err(SizeFault);
        }
        Ok(Self::from_bytes(number.parse::<u64>().map_err(|_| SizeFault)? * unit))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |unit: u64, digits: usize| self.bytes / unit < 10u64.pow(digits as u32);
        for (suffix, unit, digits) in UNITS {
            if self.bytes != 0 && self.bytes.is_multiple_of(unit) && fits(unit, digits) {
                return write!(f, "{}{suffix}", self.bytes / unit);
            }
        }
        self.bytes.fmt(f)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as 10Gi, or a number of bytes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
        if bytes > Size::MAX.bytes { Err(E::custom(SizeFault)) } else { Ok(Size { bytes }) }
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
        u64::try_from(bytes).map_err(|_| E::custom(SizeFault)).and_then(|bytes| self.visit_u64(bytes))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "pattern": Self::PATTERN,
            "maxLength": 18,
            "minimum": 0,
            "maximum": Self::MAX.bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        for (text, bytes) in [
            ("0", 0),
            ("1048588", 1_048_588),
            ("10Gi", 10 << 30),
            ("500M", 500_000_000),
            ("1k", 1_000),
            ("1Ki", 1_024),
            ("3Ti", 3 << 40),
            ("99Pi", 99 << 50),
        ] {
            assert_eq!(text.parse::<Size>().map(Size::as_bytes), Ok(bytes), "{text}");
        }
        assert_eq!(serde_json::from_str::<Size>("1024").map(Size::as_bytes).ok(), Some(1024));
    }

    #[test]
    fn refuses_what_is_no_size() {
        for text in
            ["", "Gi", "1.5Gi", "-1", "+1", "1 Gi", "1GB", "1g", "1K", "1e3", "1000000000000000000", "100Pi", "٣"]
        {
            assert_eq!(text.parse::<Size>(), Err(SizeFault), "{text:?}");
        }
        for json in ["-1", "1.5", "1000000000000000000", "null", "true", "{}"] {
            assert!(serde_json::from_str::<Size>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn writes_the_unit_that_reads_best() {
        for (bytes, text) in
            [(10 << 30, "10Gi"), (500_000_000, "500M"), (1_048_588, "1048588"), (0, "0"), (1 << 50, "1Pi")]
        {
            assert_eq!(Size::from_bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn the_largest_of_each_unit_is_within_the_maximum() {
        for (suffix, unit, digits) in UNITS {
            let text = format!("{}{suffix}", "9".repeat(digits));
            let bytes = 10u64.pow(digits as u32) - 1;
            let bytes = (bytes * unit).min(Size::MAX.bytes);
            assert_eq!(text.parse::<Size>().map(Size::as_bytes), Ok(bytes), "{text}");
        }
    }

    proptest! {
        #[test]
        fn display_reads_back_as_the_same_value(
            number in 0..=Size::MAX.bytes, unit in prop::sample::select(UNITS.to_vec()), small in 0..2_000u64,
        ) {
            for bytes in [number, number / unit.1 * unit.1, small * unit.1] {
                let size = Size::from_bytes(bytes);
                prop_assert_eq!(size.to_string().parse::<Size>(), Ok(size));
                prop_assert_eq!(serde_json::from_value::<Size>(serde_json::to_value(size).unwrap()).unwrap(), size);
            }
        }

        #[test]
        fn any_text_is_a_size_or_a_fault_and_never_a_panic(text in "[0-9kKMGTPi]{0,22}|\\PC{0,12}") {
            let _ = text.parse::<Size>();
        }
    }
}
