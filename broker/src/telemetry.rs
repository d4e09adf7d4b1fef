//! The log: one line for each step of start and stop and each change of state, none for a request or a record.

use std::io::IsTerminal as _;

use parking_lot::Mutex;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

use crate::config::{Level, LogFormat};

/// Which log lines are written, changeable while the broker runs.
#[derive(Debug)]
pub struct LogLevel {
    /// None: somebody else decides.
    filter: Option<reload::Handle<EnvFilter, Registry>>,
    level: Mutex<Level>,
}

impl LogLevel {
    /// Of a process that starts its log by itself.
    pub fn fixed(level: Level) -> Self {
        Self { filter: None, level: Mutex::new(level) }
    }

    /// As it is.
    pub fn get(&self) -> Level {
        self.level.lock().clone()
    }

    /// Changes it and says so in the log.
    pub fn set(&self, level: Level) {
        // The only error is a subscriber that is gone, and with it the log.
        let _ = self.filter.as_ref().map(|filter| filter.reload(level.filter()));
        tracing::info!(%level, "log level changed");
        *self.level.lock() = level;
    }
}

/// A subscriber that writes lines of this form to standard error, and the handle on its level.
fn subscriber(
    format: LogFormat,
    level: Level,
    with_threads: bool,
) -> (impl tracing::Subscriber + Send + Sync, LogLevel) {
    let (filter, handle) = reload::Layer::new(level.filter());
    let human = match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let lines = fmt::layer().with_writer(std::io::stderr).with_thread_names(with_threads);
    let lines = if human {
        lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed()
    } else {
        lines.json().flatten_event(true).boxed()
    };
    (
        tracing_subscriber::registry().with(filter).with(lines),
        LogLevel { filter: Some(handle), level: Mutex::new(level) },
    )
}

/// Starts the log of this process. To be called once, before anything else logs.
/// `with_threads`: each line says which thread it is from.
pub fn start(format: LogFormat, level: Level, with_threads: bool) -> LogLevel {
    let (subscriber, handle) = subscriber(format, level, with_threads);
    tracing::subscriber::set_global_default(subscriber).expect("the log is started once");
    handle
}

#[cfg(test)]
pub(crate) fn for_test() -> LogLevel {
    let (subscriber, handle) = subscriber(LogFormat::Json, "off".parse().unwrap(), false);
    // The handle works while its subscriber lives.
    std::mem::forget(tracing::Dispatch::new(subscriber));
    handle
}
