//! Whether replicas move so that brokers have alike many.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether replicas move from brokers that have more of them to those that have less.
// Not "On" and "Off": kubectl reads these words as true and false unless they are quoted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Rebalance {
    /// They stay; moves that have begun end.
    #[default]
    #[serde(rename = "Disabled")]
    Off,
    /// They move, a few at a time, until no move makes it more even.
    #[serde(rename = "Enabled")]
    On,
}

impl Rebalance {
    /// Whether replicas move.
    pub const fn is_on(self) -> bool {
        matches!(self, Self::On)
    }
}
