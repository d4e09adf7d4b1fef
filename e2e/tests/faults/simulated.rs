//! What this kernel cannot do to packets and clocks, and the simulations do: 9 and 10. The rows repeat what their last long runs
//! have counted (`make sim`); a counter that is not there or stands at zero breaks the promise.

use anyhow::Result;
use taffrail_e2e::faults::table::Kind;
use taffrail_e2e::faults::trial::{Fault, Trial};

const REPLICATION: &str = include_str!("../../../broker/tests/replication_sim/RUNS.md");
const GROUPS: &str = include_str!("../../../broker/tests/sim/RUNS.md");

const PACKETS: Fault = Fault {
    number: "9b",
    fault: "messages are late, overtaken, doubled or lost",
    injected: "simulation of replication (`broker/tests/replication_sim/RUNS.md`) and of groups (`broker/tests/sim/RUNS.md`)",
    promised: "every rule holds in every schedule; after the faults everything goes on",
};

const CLOCKS: Fault = Fault {
    number: "10",
    fault: "wall clocks jump by hours, clocks run twice as fast as others, and machines stop for a while",
    injected: "as 9b; besides, `e2e/tests/clock.rs` sets a real broker's clock",
    promised: "no rule looks at the wall clock; a Lease holds while clocks run less than 1.5 times as fast as others, and beyond \
               that a second controller does no harm",
};

/// Adds what a simulation has counted to the row.
fn counted(trial: &mut Trial, name: &str, runs: &str, counters: &[&str]) {
    let figure = |what: &str| {
        let line = runs.lines().find(|line| line.starts_with(&format!("| {what} |")));
        line.and_then(|line| line.split('|').nth(2)).map(|cell| cell.trim().to_owned()).unwrap_or_default()
    };
    let (schedules, commit) = (figure("schedules"), figure("commit"));
    let all = figure("schedules of all runs");
    trial.saw(format!("{name}: {schedules} schedules at commit {commit}, {all} in all runs"));
    for counter in counters {
        let times = figure(counter);
        trial.must(times.parse().is_ok_and(|times: u64| times > 0), format!("{name}: no \"{counter}\""));
        trial.saw(format!("{times} × {counter}"));
    }
}

#[test]
fn f9_messages_are_late_overtaken_doubled_or_lost() -> Result<()> {
    let mut trial = Trial::default();
    let of = ["fault: message lost", "fault: message doubled", "fault: message late by seconds, overtaken by others"];
    counted(&mut trial, "replication", REPLICATION, &of);
    let of = ["fault: request lost", "fault: answer doubled", "fault: answer late by seconds, overtaken by others"];
    counted(&mut trial, "groups", GROUPS, &of);
    trial.end(&PACKETS, Kind::Simulated)
}

#[test]
fn f10_clocks_jump_and_machines_stop() -> Result<()> {
    let mut trial = Trial::default();
    counted(&mut trial, "groups", GROUPS, &["fault: the wall clock jumps"]);
    let of = [
        "fault: process stopped for a while, then goes on",
        "fault: wall clock jumps by up to an hour",
        "fault: clocks run at different rates",
        "fault: clocks run at rates that a Lease does not allow for",
    ];
    counted(&mut trial, "replication", REPLICATION, &of);
    trial.end(&CLOCKS, Kind::Simulated)
}
