//! What happened in a run, so that a run can show that it has been everywhere.

use taffrail_broker::coordinator::runtime::Step;

use crate::schedules::seen;

seen! {
    RequestLost: "fault: request lost",
    RequestDoubled: "fault: request doubled",
    RequestLate: "fault: request late by seconds, overtaken by others",
    AnswerLost: "fault: answer lost",
    AnswerDoubled: "fault: answer doubled",
    AnswerLate: "fault: answer late by seconds, overtaken by others",
    AppendFailed: "fault: append failed",
    AppendUnknown: "fault: append reported as failed, but in the log",
    CrashBeforeChanges: "crash before: changes are appended",
    CrashBeforeBegin: "crash before: the begin of a checkpoint is appended",
    CrashBeforeParts: "crash before: parts of a checkpoint are appended",
    CrashBeforeEnd: "crash before: the end of a checkpoint is appended",
    CrashBeforeTrim: "crash before: the log is trimmed",
    CrashBeforeAnswer: "crash before: an answer is sent",
    CrashAfterChanges: "crash after: changes are in the log",
    CrashAfterBegin: "crash after: the begin of a checkpoint is in the log",
    CrashAfterParts: "crash after: parts of a checkpoint are in the log",
    CrashAfterEnd: "crash after: the end of a checkpoint is in the log",
    CrashAfterTrim: "crash after: the log is trimmed",
    CrashInFlightLost: "crash: appends under way lost",
    CrashInFlightKept: "crash: appends under way kept",
    WallClockJump: "fault: the wall clock jumps",
    TopicMade: "topic: made",
    TopicGrown: "topic: grown",
    TopicDeleted: "topic: deleted",
    TopicRestored: "topic: brought back with its identity",
    TopicRemade: "topic: made anew under its name",
    MemberPaused: "member: stopped for longer than its session, then goes on",
    MemberKilled: "member: dies without a word",
    MemberHoldsOn: "member: holds on to what it was asked to let go of",
    MemberGaveUp: "member: gives up a session without answers and joins anew",
    Hostile: "member: hostile request",
    Joined: "branch: joined",
    Resumed: "branch: resumed",
    Left: "branch: left",
    WentAway: "branch: static member left to come back",
    CameBack: "branch: static member came back and took its place",
    InstanceInUse: "branch: second process of a static member refused",
    HandedOver: "branch: partition taken over from another member",
    LetGo: "branch: member let go of what it was asked to",
    LateLetGo: "branch: heartbeat of an older epoch let go of nothing",
    LateResume: "branch: resume of an older epoch let go of nothing",
    SessionTimeout: "branch: removed by session timeout",
    RebalanceTimeout: "branch: removed by rebalance timeout",
    Fenced: "branch: fenced",
    UnknownMember: "branch: unknown member",
    Committed: "branch: commit kept",
    StaleCommit: "branch: commit of a partition that is not the member's refused",
    UnknownPartition: "branch: commit of a partition that is not there refused",
    OutsideCommit: "branch: commit from outside kept",
    OutsideRefused: "branch: commit from outside refused",
    Reset: "branch: offsets reset by force",
    GroupDeleted: "branch: group deleted",
    GroupExpired: "branch: group expired",
    TopicForgotten: "branch: offsets of a deleted topic expired",
    NothingCommitted: "branch: fetch of an offset that was never committed",
    Fetched: "branch: fetch of a committed offset",
    LoadedFromCheckpoint: "branch: loaded from a checkpoint of a trimmed log",
    UnfinishedCheckpoint: "branch: loaded a log with an unfinished checkpoint",
    Trimmed: "branch: log trimmed",
}

impl Counts {
    pub(crate) fn crash_before(&mut self, step: Step) {
        self.saw(match step {
            Step::Changes => Seen::CrashBeforeChanges,
            Step::CheckpointBegin => Seen::CrashBeforeBegin,
            Step::CheckpointParts => Seen::CrashBeforeParts,
            Step::CheckpointEnd => Seen::CrashBeforeEnd,
            Step::Trim => Seen::CrashBeforeTrim,
            Step::Answer => Seen::CrashBeforeAnswer,
        });
    }

    /// After an append is in the log, or the log is trimmed, and before the shard knows.
    pub(crate) fn crash_after(&mut self, step: Step) {
        self.saw(match step {
            Step::Changes => Seen::CrashAfterChanges,
            Step::CheckpointBegin => Seen::CrashAfterBegin,
            Step::CheckpointParts => Seen::CrashAfterParts,
            Step::CheckpointEnd => Seen::CrashAfterEnd,
            Step::Trim => Seen::CrashAfterTrim,
            Step::Answer => return,
        });
    }
}
