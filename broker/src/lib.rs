//! Taffrail's broker: stores partitions and serves them by gRPC.
//!
//! - [`clock`], [`context`]: time and randomness, given to everything that needs them.
//! - [`controller`]: makes, changes, removes topics and brings them back.
//! - [`config`]: what can be set, and from where;
//! - [`crash`]: places at which tests make the process die.
//! - [`metrics`]: every number the broker shows.
//! - [`metadata`]: where topics are kept as documents with versions.
//! - [`partition`]: one task that owns each partition's writes, and how it is read.
//! - [`producer_ids`]: identities of idempotent producers.
//! - [`storage`]: logs of record batches on RocksDB; knows offsets, not topics' names.
//! - [`topics`]: the topics that are served, by name.

pub mod clock;
pub mod config;
pub mod context;
pub mod controller;
pub mod crash;
pub mod metadata;
pub mod metrics;
pub mod partition;
pub mod producer_ids;
pub mod storage;
pub mod topics;
