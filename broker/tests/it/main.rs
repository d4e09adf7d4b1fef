//! The broker in one process, on storage in memory, asked over gRPC on the loopback interface.

#![allow(clippy::unwrap_used, clippy::too_many_lines)]

mod admin;
mod bad_input;
mod fetch;
mod fetch_stream;
mod forward;
mod groups;
mod harness;
mod hostile;
mod produce;
mod produce_stream;
mod read;
mod server;
