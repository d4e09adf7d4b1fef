//! The fault table: what happens to a cluster, what is promised then, and what was seen.
//!
//! - [`trial`]: one row of it, as a test runs it: what it measures and what it finds broken.
//! - [`table`]: the rows of all tests in `e2e/faults`, written by the run.
//! - [`ground`]: the cluster under load that faults happen to. [`reader`]: who reads meanwhile.

pub mod ground;
pub mod reader;
pub mod table;
pub mod trial;

use std::time::Duration;

/// Set to `all` for every fault; without it, the few are tried that `make test` runs.
pub const FAULTS: &str = "TAFFRAIL_FAULTS";

/// Whether every fault is to be tried. Tests that are not of the few begin with asking this.
pub fn all() -> bool {
    let all = is_all();
    if !all {
        eprintln!("not tried: {FAULTS}=all tries every fault (make faults)");
    }
    all
}

fn is_all() -> bool {
    std::env::var_os(FAULTS).is_some_and(|value| value == "all")
}

/// How long something may take that was promised within `limit`. The table is judged by what is promised; `make test`, which
/// tries a few rows beside other tests and on machines of any speed, is for what may never break, and allows three times as long.
pub fn allowed(limit: Duration) -> Duration {
    if is_all() { limit } else { limit.saturating_mul(3) }
}
