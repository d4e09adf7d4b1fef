//! The fault table (`e2e/faults`): real faults of processes, networks, disks and the API server of a real Kubernetes of three nodes,
//! under load, each with what is promised of it. `make test` tries the few that do not ask [`taffrail_e2e::faults::all`], `make
//! e2e` and `make faults` all of them. Rows that are about what people and Kubernetes do are in `days`.
#![allow(clippy::unwrap_used)]

mod api;
mod clients;
mod disks;
mod eligible;
mod network;
mod processes;
mod simulated;
mod space;
mod together;

use std::time::Duration;

/// How long a partition may acknowledge nothing after a broker's death: its session, and the election (6 s and some).
const FAILOVER: Duration = Duration::from_secs(10);
/// Everything is in sync again so soon after a fault ends.
const HEAL: Duration = Duration::from_mins(1);

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
