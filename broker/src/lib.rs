//! Taffrail's broker: stores partitions and serves them by gRPC.
//!
//! - [`storage`]: logs of record batches on RocksDB; knows offsets, not topics' names.

pub mod storage;
