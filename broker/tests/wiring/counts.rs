//! What happened in a run, so that many runs can show that they have been everywhere.

use crate::schedules::seen;

seen! {
    Killed: "fault: process dies",
    PowerLost: "fault: power lost",
    Stopped: "fault: orderly stop",
    DiskFull: "fault: disk full",
    DiskFailed: "fault: write to the disk fails",
    Cut: "fault: cut between two machines",
    CutOneWay: "fault: cut one way",
    Held: "fault: messages held for a while, then all delivered",
    Slow: "fault: slow link",
    Lossy: "fault: links that break by themselves",
    ApiCut: "fault: broker cut off from the API",
    ApiDeaf: "fault: answers of the API lost",
    ClockSet: "fault: wall clock set",
    Acknowledged: "branch: record acknowledged",
    Unknown: "branch: outcome of a record unknown to its producer",
    UnknownStored: "branch: such a record that is there",
    ReadEarly: "branch: record read while things went wrong",
    LaterEpoch: "branch: partition that changed its leader",
    Committed: "branch: offsets committed by a group's member",
    JoinedAgain: "branch: member that joined its group again",
}
