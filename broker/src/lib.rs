//! Taffrail's broker: stores partitions and serves them by gRPC.
//!
//! - [`crash`]: places at which tests make the process die.
//! - [`metrics`]: every number the broker shows.
//! - [`storage`]: logs of record batches on RocksDB; knows offsets, not topics' names.

pub mod crash;
pub mod metrics;
pub mod storage;
