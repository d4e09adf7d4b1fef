//! A running broker: runtime, allocator and log around it, and what a failure exits with.

use std::time::Instant;

use super::Exit;
use crate::broker::{self, BrokerError};
use crate::config::layers::Effective;
use crate::storage::StorageError;
use crate::{allocator, telemetry};

/// Threads for calls that block: opening, closing and maintaining storage, small reads of files. The data path has threads
/// of its own.
const BLOCKING_THREADS: usize = 16;

/// Tasks that a thread runs between two looks at its sockets. With tokio's 61 a request waited for milliseconds behind
/// readers of large batches, each of whom takes 50 to 100 µs at a time.
const EVENT_INTERVAL: u32 = 16;

/// Runs until a signal.
pub(super) fn run(effective: &Effective) -> Exit {
    let started = Instant::now();
    let config = effective.config.clone();
    let log_level = telemetry::start(config.log_format, config.log_level.clone());
    if let Err(error) = allocator::configure() {
        tracing::warn!(%error, "jemalloc's background thread is not running: memory is given back late");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("taffrail")
        .max_blocking_threads(BLOCKING_THREADS)
        .event_interval(EVENT_INTERVAL)
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(Box::pin(broker::run(config, log_level, started))),
        Err(error) => Err(BrokerError::Runtime(error)),
    };
    match outcome {
        Ok(()) => {
            tracing::info!("stopped");
            Exit::Done
        }
        Err(error) => fail(&error),
    }
}

/// Tells each fault on a line of its own.
fn fail(error: &BrokerError) -> Exit {
    for line in error.to_string().lines() {
        tracing::error!("{line}");
    }
    exit_of(error)
}

fn exit_of(error: &BrokerError) -> Exit {
    match error {
        BrokerError::Storage(StorageError::InUse { .. }) => Exit::InUse,
        BrokerError::Storage(StorageError::Damaged { .. }) => Exit::Damaged,
        BrokerError::Manifest(_) | BrokerError::Refused(_) | BrokerError::Tokens(_) => Exit::Usage,
        _ => Exit::Failed,
    }
}
