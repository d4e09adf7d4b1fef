//! jemalloc's settings. It serves RocksDB too: glibc's allocator gives big buffers back to the kernel at once and pays for
//! each in page faults, a fifth to half of the throughput.
//!
//! What was freed is kept for ten seconds (jemalloc's default), so that a busy broker does not fault; one background
//! thread gives it back after that, also when nobody allocates any more: a broker at rest shrinks.

use tikv_jemalloc_ctl::{Error, background_thread, max_background_threads};

/// Turns the background thread on. One is enough: it wakes a few times a second and only returns pages.
pub fn configure() -> Result<(), Error> {
    max_background_threads::write(1)?;
    background_thread::write(true)
}
