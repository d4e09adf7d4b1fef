//! The threads of a broker.

use tokio::runtime::{Builder, Runtime};

/// Threads for calls that block: opening, closing and maintaining storage, small reads of files. The data path has threads
/// of its own.
const BLOCKING_THREADS: usize = 16;

/// Tasks that a thread runs between two looks at its sockets. With tokio's 61 a request waited for milliseconds behind
/// readers of large batches, each of whom takes 50 to 100 µs at a time.
const EVENT_INTERVAL: u32 = 16;

/// A runtime whose threads have this name: of so many threads, or one for each core.
pub(crate) fn new(name: &str, threads: Option<usize>) -> std::io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    builder.enable_all().thread_name(name).max_blocking_threads(BLOCKING_THREADS).event_interval(EVENT_INTERVAL).build()
}
