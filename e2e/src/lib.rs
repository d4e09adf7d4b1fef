//! End-to-end tests, faults, the demo and the benchmarks: they run the real programs as their users do.
//!
//! - [`process`]: starts, kills and stops brokers and command lines; nothing it started outlives it.
//! - [`flights`]: the real input.

pub mod bench;
pub mod flights;
pub mod process;
