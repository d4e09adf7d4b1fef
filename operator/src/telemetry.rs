//! The log: one line for what an operator does and for what keeps it from doing it, with the object's name.

use std::fmt;
use std::io::IsTerminal as _;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use clap::ValueEnum;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt as lines, reload};

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    #[value(alias = "human")]
    Text,
    /// One JSON object on each line.
    Json,
}

/// Which log lines are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level(String);

impl Level {
    fn filter(&self) -> EnvFilter {
        EnvFilter::builder().parse(&self.0).expect("checked when it was made")
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        // The parser takes any word without a level for the name of a module, so a misspelt level would go unnoticed.
        let known = |word: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&word);
        let part = |part: &str| {
            part.split_once('=').map_or_else(|| known(part), |(target, level)| !target.is_empty() && known(level))
        };
        if text.split(',').all(|p| part(p.trim())) && EnvFilter::builder().parse(text).is_ok() {
            return Ok(Self(text.to_owned()));
        }
        Err("write error, warn, info, debug or trace, and exceptions as module=level, separated by commas".to_owned())
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which log lines are written, changeable while the operator runs.
#[derive(Debug)]
pub struct LogLevel {
    filter: reload::Handle<EnvFilter, Registry>,
    level: Mutex<Level>,
}

impl LogLevel {
    /// As it is.
    pub fn get(&self) -> Level {
        self.level.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes it and says so in the log.
    pub fn set(&self, level: Level) {
        // The only error is a subscriber that is gone, and with it the log.
        let _ = self.filter.reload(level.filter());
        tracing::info!(%level, "log level changed");
        *self.level.lock().unwrap_or_else(PoisonError::into_inner) = level;
    }
}

/// Starts the log of this process. To be called once, before anything else logs.
pub fn start(format: LogFormat, level: Level) -> LogLevel {
    let (subscriber, handle) = subscriber(format, level);
    tracing::subscriber::set_global_default(subscriber).expect("the log is started once");
    handle
}

fn subscriber(format: LogFormat, level: Level) -> (impl tracing::Subscriber + Send + Sync, LogLevel) {
    let (filter, handle) = reload::Layer::new(level.filter());
    let terminal = std::io::stderr().is_terminal();
    let text = format == LogFormat::Text || format == LogFormat::Auto && terminal;
    let layer = lines::layer().with_writer(std::io::stderr);
    let layer = if text {
        layer.with_ansi(terminal).with_target(false).boxed()
    } else {
        layer.json().flatten_event(true).boxed()
    };
    (tracing_subscriber::registry().with(filter).with(layer), LogLevel { filter: handle, level: Mutex::new(level) })
}

#[cfg(test)]
pub(crate) fn for_test() -> LogLevel {
    let (subscriber, handle) = subscriber(LogFormat::Json, "off".parse().unwrap());
    // The handle works while its subscriber lives.
    std::mem::forget(tracing::Dispatch::new(subscriber));
    handle
}
