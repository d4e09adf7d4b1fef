//! jemalloc's settings. It serves RocksDB too: glibc's allocator gives big buffers back to the kernel at once and pays for
//! each in page faults, a fifth to half of the throughput.
//!
//! What was freed is kept for ten seconds (jemalloc's default), so that a busy broker does not fault; one background
//! thread gives it back after that, also when nobody allocates any more: a broker at rest shrinks. Near the memory limit it
//! is kept for a second only ([`Decay`]): under 200 hostile clients what was kept came to 300 MiB of 1,200.

use tikv_jemalloc_ctl::{Access, AsName, Error, arenas, background_thread, max_background_threads};

/// Turns the background thread on. One is enough: it wakes a few times a second and only returns pages.
pub fn configure() -> Result<(), Error> {
    max_background_threads::write(1)?;
    background_thread::write(true)
}

/// How long freed memory is kept, by how close the process is to its limit.
#[derive(Debug)]
pub struct Decay {
    memory_limit: u64,
    is_short: bool,
}

impl Decay {
    /// Milliseconds: jemalloc's default, and near the limit.
    const USUAL: isize = 10_000;
    const SHORT: isize = 1_000;

    /// For a process that may take so many bytes. Begins with the default.
    pub fn new(memory_limit: u64) -> Self {
        Self { memory_limit, is_short: false }
    }

    /// Takes resident memory into account: above three quarters of the limit freed memory is kept for a second, below half
    /// for ten again.
    pub fn follow(&mut self, resident: u64) -> Result<(), Error> {
        let changed =
            if self.is_short { resident < self.memory_limit / 2 } else { resident > self.memory_limit / 4 * 3 };
        if changed {
            self.is_short = !self.is_short;
            set_dirty_decay(if self.is_short { Self::SHORT } else { Self::USUAL })?;
        }
        Ok(())
    }
}

/// Of all arenas, and of those to come.
fn set_dirty_decay(milliseconds: isize) -> Result<(), Error> {
    b"arenas.dirty_decay_ms\0".name().write(milliseconds)?;
    for arena in 0..arenas::narenas::read()? {
        // An arena that no thread uses yet refuses, and takes the one for all when it begins.
        let _ = format!("arena.{arena}.dirty_decay_ms\0").name().write(milliseconds);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_memory_is_kept_for_a_shorter_time_near_the_limit() {
        let kept = || -> isize { b"arenas.dirty_decay_ms\0".name().read().unwrap() };
        let mut decay = Decay::new(1_000);
        let mut steps = vec![];
        for resident in [100, 751, 600, 501, 499, 700] {
            decay.follow(resident).unwrap();
            steps.push(kept());
        }
        assert_eq!(steps, [10_000, 1_000, 1_000, 1_000, 10_000, 10_000]);
        let first: isize = b"arena.0.dirty_decay_ms\0".name().read().unwrap();
        assert_eq!(first, 10_000);
    }
}
