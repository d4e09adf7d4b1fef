//! What a topic's configuration comes to on the data path: plain numbers, defaults filled in.

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
