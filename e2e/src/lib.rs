//! End-to-end tests, faults, the demo and the benchmarks: they run the real programs as their users do.
//!
//! - [`process`]: starts, kills and stops brokers and command lines; nothing it started outlives it.
//! - [`cli`]: runs programs to their end.
//! - [`writers`], [`history`]: load that knows what it was told, and the checker of it.
//! - [`stubs`]: single calls, the broker's own answers.
//! - [`loop_volume`], [`damage`]: disks that are small, lose power, or flip bits. [`wall_clock`]: clocks that jump.
//!   [`boot_id`]: kernels that have started anew.
//! - [`http2`]: connections that break the rules. [`hostile`]: thousands of clients of that kind, and what they can do.
//! - [`group`]: members of consumer groups, and the judge of what they did.
//! - [`kubernetes`]: a real API server.
//! - [`faults`]: the fault table, and what it is made on.
//! - [`flights`]: the real input.

pub mod bench;
pub mod boot_id;
pub mod cli;
pub mod damage;
pub mod faults;
pub mod flights;
pub mod group;
pub mod history;
pub mod hostile;
pub mod http2;
pub mod kubernetes;
pub mod loop_volume;
pub mod process;
pub mod stubs;
pub mod wall_clock;
pub mod writers;
