//! Taffrail's broker: stores partitions and serves them by gRPC.
//!
//! # A batch's way in
//!
//! 1. [`server`] takes the bytes off the connection, against the budget for requests ([`memory`]).
//! 2. [`service`] makes a caller of the connection and its token, asks [`security`], checks the batch by walking its records
//!    (`taffrail_proto::record`), and looks the partition up in the [`topics`] it holds.
//! 3. [`partition`]: the partition's one task checks epoch and sequence numbers, gives the batch its base offset and leader
//!    epoch in place, and hands it to its log.
//! 4. [`storage`]: the writer thread takes what all partitions have handed in, writes it in one go, syncs it where a topic
//!    asks for that, and resolves the tickets.
//! 5. The task raises the high watermark, publishes its snapshot, wakes waiting readers and answers, in order.
//!
//! # A batch's way out
//!
//! 1. [`service`] loads the partition's snapshot: no task is asked. If there is nothing to read it waits on the partition's
//!    list.
//! 2. [`storage`] gives whole batches, the very bytes that came in: recent ones from memory, others by their known keys from
//!    RocksDB, read ahead in parallel.
//! 3. [`server`] sends them against the budget for answers and the reader's credit.
//!
//! # Modules
//!
//! Data path:
//! - [`server`], [`service`], [`security`], [`memory`]: connections, the API, who may do what, what clients may occupy.
//! - [`topics`], [`partition`], [`producer_ids`]: names to partitions; appends and reads; identities of producers.
//! - [`brokers`], [`peers`]: who else there is, and the way there, for partitions and groups that others lead.
//! - [`storage`]: logs of record batches on RocksDB; knows offsets, not topics' names.
//!
//! Shared state of clients:
//! - [`coordinator`]: replicated state machines on internal topics; consumer groups.
//!
//! What is wanted:
//! - [`controller`]: makes, changes, removes topics and brings them back. [`metadata`]: where it keeps them.
//! - [`election`]: which broker of a cluster is controller. [`registration`]: who this broker is among them.
//! - [`manifest`]: Topic objects from files. [`retention`]: gives up what is too old or too much.
//!
//! The process:
//! - [`cli`], [`config`], [`broker`]: commands, settings, start and stop. [`dev`]: all brokers of a cluster at once.
//!   [`signals`], [`allocator`], [`open_files`].
//! - [`readiness`], [`metrics`], [`telemetry`], [`admin_http`]: how it is doing, and how that is seen.
//! - [`context`], [`clock`]: time and randomness, given to everything that needs them. [`crash`]: places at which tests make
//!   the process die.
//!
//! # Invariants
//!
//! - Acknowledged means kept: at the topic's durability, which the acknowledgement names (D1, D2, D4).
//! - An offset, once given, means the same record for ever; offsets rise by one and never restart (R2, R5).
//! - What is sent twice with the same producer and sequence is stored once (P1).
//! - No record younger than its retention goes, whatever the wall clock says.
//! - Damage is told, with file and byte, and never served or skipped (D5, D6).
//! - After a start that cannot prove that nothing is lost, epochs rise, so that readers notice (D7).
//! - Memory is bounded by `--memory-limit`, whatever clients do. No length or count of theirs is believed before it is
//!   checked.
//! - A call goes on to another broker once at most, with the epoch under which that is believed to lead (E2).
//! - Nothing on the data path waits for metadata, logging or a lock that a slow operation holds.

pub mod admin_http;
pub mod allocator;
pub mod broker;
pub mod brokers;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod context;
pub mod controller;
pub mod coordinator;
pub mod crash;
pub mod dev;
pub mod election;
pub mod manifest;
pub mod memory;
pub mod metadata;
pub mod metrics;
pub mod open_files;
pub mod partition;
pub mod peers;
pub mod producer_ids;
pub mod readiness;
pub mod registration;
pub mod replication;
pub mod retention;
pub(crate) mod runtime;
pub mod security;
pub mod server;
pub mod service;
pub mod signals;
pub mod storage;
pub mod telemetry;
pub mod topics;
