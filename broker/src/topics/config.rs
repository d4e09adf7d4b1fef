//! What a topic's configuration comes to on the data path: plain numbers, defaults filled in.

use taffrail_crds::{TopicConfig, topic};
use taffrail_proto::record::TimestampType;

use crate::storage::Durability;

/// How a topic's records are checked and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Largest batch, bytes.
    pub max_message_bytes: usize,
    /// Which time records carry.
    pub timestamp_type: TimestampType,
    /// What an acknowledged record has been written to.
    pub durability: Durability,
    /// How long records are kept, milliseconds of log time; `None`: for ever.
    pub retention_ms: Option<i64>,
    /// Bytes that each partition keeps; `None`: no limit.
    pub retention_bytes: Option<u64>,
}

impl Settings {
    /// For tests that do not care: batches of 1 MiB at most, kept for ever.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self {
            max_message_bytes: 1 << 20,
            timestamp_type: TimestampType::CreateTime,
            durability: Durability::Os,
            retention_ms: None,
            retention_bytes: None,
        }
    }

    /// Of a configuration that was admitted.
    pub fn of(config: &TopicConfig) -> Self {
        Self {
            max_message_bytes: config.max_message_bytes() as usize,
            timestamp_type: match config.timestamp_type() {
                topic::TimestampType::CreateTime => TimestampType::CreateTime,
                topic::TimestampType::LogAppendTime => TimestampType::LogAppendTime,
            },
            durability: match config.durability() {
                topic::Durability::Os => Durability::Os,
                topic::Durability::Disk => Durability::Disk,
            },
            retention_ms: config.retention().as_millis().map(|ms| i64::try_from(ms).unwrap_or(i64::MAX)),
            retention_bytes: config.retention_bytes(),
        }
    }
}
