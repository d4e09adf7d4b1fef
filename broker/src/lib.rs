//! Taffrail's broker: stores partitions and serves them by gRPC.
//!
//! - [`admin_http`]: probes, metrics and the log level by HTTP.
//! - [`clock`], [`context`]: time and randomness, given to everything that needs them.
//! - [`controller`]: makes, changes, removes topics and brings them back.
//! - [`config`]: what can be set, and from where.
//! - [`crash`]: places at which tests make the process die.
//! - [`memory`]: shares of the memory limit that clients can fill.
//! - [`metrics`]: every number the broker shows.
//! - [`metadata`]: where topics are kept as documents with versions.
//! - [`partition`]: one task that owns each partition's writes, and how it is read.
//! - [`producer_ids`]: identities of idempotent producers.
//! - [`readiness`]: whether this broker should get requests, and why not.
//! - [`retention`]: gives up old records and space.
//! - [`security`]: who calls, and whether they may.
//! - [`server`]: listeners, connections, drain.
//! - [`service`]: the gRPC API.
//! - [`storage`]: logs of record batches on RocksDB; knows offsets, not topics' names.
//! - [`telemetry`]: the log.
//! - [`topics`]: the topics that are served, by name.

pub mod admin_http;
pub mod allocator;
pub mod clock;
pub mod config;
pub mod context;
pub mod controller;
pub mod crash;
pub mod manifest;
pub mod memory;
pub mod metadata;
pub mod metrics;
pub mod partition;
pub mod producer_ids;
pub mod readiness;
pub mod retention;
pub mod security;
pub mod server;
pub mod service;
pub mod signals;
pub mod storage;
pub mod telemetry;
pub mod topics;
