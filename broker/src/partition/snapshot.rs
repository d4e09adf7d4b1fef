//! What readers know of a partition without asking its owner.

/// Which records a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Isolation {
    /// All that are committed to the log: up to the high watermark.
    #[default]
    ReadUncommitted,
    /// Only those whose transaction is decided: up to the last stable offset.
    ReadCommitted,
    /// All that the leader has written, committed or not. For replicas alone: no client can ask for it.
    LogEnd,
}

/// State of a partition at one moment, published whole by its owner: the fields belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// First offset that is still there.
    pub log_start: i64,
    /// Exclusive end of what every in-sync replica has (HW).
    pub high_watermark: i64,
    /// Exclusive end of what is decided (LSO): the high watermark while there are no transactions.
    pub last_stable: i64,
    /// Next offset to be written here (LEO).
    pub log_end: i64,
    /// The current leader epoch.
    pub leader_epoch: i32,
    /// The partition is not served any more; the rest is its last state.
    pub closed: bool,
}

impl Snapshot {
    /// Of a partition that nothing was heard of.
    pub const UNKNOWN: Self =
        Self { log_start: -1, high_watermark: -1, last_stable: -1, log_end: -1, leader_epoch: -1, closed: false };

    /// Exclusive end of what a reader may see.
    pub fn visible_end(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::ReadUncommitted => self.high_watermark,
            Isolation::ReadCommitted => self.last_stable,
            Isolation::LogEnd => self.log_end,
        }
    }
}
