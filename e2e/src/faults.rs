//! The fault table: what happens to a cluster, what is promised then, and what was seen.
//!
//! - [`trial`]: one row of it, as a test runs it: what it measures and what it finds broken.
//! - [`table`]: the rows of all tests in `e2e/faults`, written by the run.
//! - [`ground`]: the cluster under load that faults happen to. [`reader`]: who reads meanwhile.

pub mod ground;
pub mod reader;
pub mod table;
pub mod trial;

/// Set to `all` for every fault; without it, the few are tried that `make test` runs.
pub const FAULTS: &str = "TAFFRAIL_FAULTS";

/// Whether every fault is to be tried. Tests that are not of the few begin with asking this.
pub fn all() -> bool {
    let all = std::env::var_os(FAULTS).is_some_and(|value| value == "all");
    if !all {
        eprintln!("not tried: {FAULTS}=all tries every fault (make faults)");
    }
    all
}
