//! A running broker: runtime, allocator and log around it, and what a failure exits with.

use std::time::Instant;

use super::Exit;
use crate::broker::{self, BrokerError};
use crate::config::layers::Effective;
use crate::storage::StorageError;
use crate::{allocator, dev, runtime, telemetry};

/// Runs until a signal.
pub(super) fn run(effective: &Effective) -> Exit {
    let started = Instant::now();
    let config = effective.config.clone();
    // Who says what, where several brokers do.
    let with_threads = config.dev.is_some();
    let log_level = telemetry::start(config.log_format, config.log_level.clone(), with_threads);
    if let Err(error) = allocator::configure() {
        tracing::warn!(%error, "jemalloc's background thread is not running: memory is given back late");
    }
    let outcome = match runtime::new("taffrail", None) {
        Ok(runtime) => runtime.block_on(async {
            match config.dev.clone() {
                Some(dev) => Box::pin(dev::run(config, dev, log_level, started)).await,
                None => Box::pin(broker::run(config, log_level, started)).await,
            }
        }),
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
        BrokerError::Manifest(_)
        | BrokerError::Refused(_)
        | BrokerError::Tokens(_)
        | BrokerError::OtherDirectory(_)
        | BrokerError::FewerBrokers { .. } => Exit::Usage,
        _ => Exit::Failed,
    }
}
