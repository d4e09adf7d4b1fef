//! What happened in a run, so that a run can show that it has been everywhere.

macro_rules! seen {
    ($($name:ident: $what:literal,)*) => {
        /// Something that every run must have seen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Seen { $(#[doc = $what] $name,)* }

        impl Seen {
            /// Each of them, with what it is.
            pub(crate) const ALL: &[(Self, &'static str)] = &[$((Self::$name, $what),)*];
        }
    };
}

seen! {
    MessageLost: "fault: message lost",
    MessageDoubled: "fault: message doubled",
    MessageLate: "fault: message late by seconds, overtaken by others",
    MessageCut: "fault: message lost in a cut",
    CutPair: "fault: cut between two brokers",
    CutOneWay: "fault: cut one way",
    CutBroker: "fault: broker cut off from all others",
    CutChain: "fault: cut that is not transitive",
    CutApi: "fault: broker cut off from the API",
    Crash: "fault: process dies",
    CrashPendingLost: "fault: process dies with writes under way, lost",
    PowerLoss: "fault: power lost",
    PowerLossOfRecords: "fault: power lost, and records with it",
    PowerLossOfAll: "fault: power of all brokers lost at once",
    VolumeLost: "fault: volume lost",
    CleanStop: "fault: orderly stop",
    Paused: "fault: process stopped for a while, then goes on",
    SlowDisk: "fault: slow disk",
    SecondController: "fault: second controller acts",
    ApiRequestLost: "fault: call of the API lost",
    ApiAnswerLost: "fault: answer of the API lost",
    ApiWriteAnswerLost: "fault: answer to a write that went through lost",
    ApiLate: "fault: write that gets to the API after its caller gave up",
    ApiConflict: "fault: compare-and-swap refused",
    StaleList: "fault: stale list after a start",
    StaleLead: "branch: quorum read told a leader-to-be of another state than the watch",
    Fenced: "branch: broker fenced",
    Unfenced: "branch: broker unfenced",
    Elected: "branch: leader elected",
    ElectedFromElr: "branch: leader elected from the ELR",
    Recovering: "branch: leader elected without proof",
    Lost: "branch: acknowledged record lost, and reported",
    NoLeader: "branch: partition without a leader",
    Refreshed: "branch: replica goes on in a later session",
    LostSession: "branch: replica of a session that lost records put out",
    Shrunk: "branch: leader's shrink taken up",
    Expanded: "branch: leader's expansion taken up",
    Refused: "branch: leader's proposal refused",
    LeaderTook: "branch: leadership taken",
    LeaderDeposed: "branch: leader deposed",
    DeposedRan: "branch: deposed leader went on for a while",
    Truncated: "branch: follower truncated",
    Restarted: "branch: follower began anew at the leader's log start",
    Trimmed: "branch: log start raised",
    OtherEpoch: "branch: answer of another epoch dropped",
    Appended: "branch: batch appended",
    Deduplicated: "branch: batch sent twice, stored once",
    OutOfSequence: "branch: batch out of sequence refused",
    NotEnoughReplicas: "branch: batch refused below min ISR",
    Acknowledged: "branch: batch acknowledged",
    Unknown: "branch: outcome of a batch unknown to its producer",
    Failed: "branch: batch failed for sure",
    HeldBack: "branch: latest offset not told by a new leader yet",
    ReadFollower: "branch: read from a follower",
    LeftBroken: "liveness: a broker stayed broken",
}

/// How often.
#[derive(Clone, Debug)]
pub(crate) struct Counts(Vec<u64>);

impl Default for Counts {
    fn default() -> Self {
        Self(vec![0; Seen::ALL.len()])
    }
}

impl Counts {
    pub(crate) fn saw(&mut self, seen: Seen) {
        self.0[seen as usize] += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, others) in self.0.iter_mut().zip(&other.0) {
            *mine += others;
        }
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Seen::ALL.iter().zip(&self.0).map(|((_, what), count)| (*what, *count))
    }
}
