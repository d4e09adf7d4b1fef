//! Faults that are put in on purpose, to see that the checks see them. All are made in what drives the machines here; the
//! product has no switch for them.

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    /// A follower cuts its log to its high watermark before it follows (T3).
    TruncateToHighWatermark,
    /// A leader takes every session of a broker for the one it knows (M6).
    IncarnationNotChecked,
    /// A leader that asks for a smaller ISR goes by it at once (I1).
    ShrinkLocally,
    /// acks=all is acknowledged while too few are in sync (H2, L1).
    AckBelowMinIsr,
    /// The high watermark goes by the ISR of the slice alone (I2).
    CommittedIsrOnly,
    /// A proposal that has not been heard of for a while is taken for refused (I5, M3).
    SilenceIsRefusal,
    /// A follower takes answers of an older epoch (E3).
    OlderEpochAccepted,
    /// Leadership is taken on what the watch says (M7).
    NoQuorumRead,
    /// A follower counts what it has handed to its log (H7).
    CountedBeforeWritten,
    /// A broker that has lost records vouches for its earlier sessions (L5).
    EligibleAfterLoss,
    /// A move is completed as soon as it has begun (I10).
    MovedBeforeCaughtUp,
    /// A watch that has expired goes on without a list.
    NotListedAnew,
    /// What was seen before the metadata went back in time is forgotten (M5).
    OlderMetadataObeyed,
    /// Who holds the Lease, and whether it has expired, is told by the wall clock (M16).
    LeaseByWallClock,
}
