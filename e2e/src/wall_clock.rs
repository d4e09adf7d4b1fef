//! The wall clock of one broker, set forth and back while it runs, without touching the machine's: a library in front of the
//! C library (`wall_clock.c`), since our Rust has no `unsafe`. The program under test is the one that is shipped.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::loop_volume::run;
use crate::process::BrokerOptions;

/// A wall clock of its own.
#[derive(Debug)]
pub struct WallClock {
    library: PathBuf,
    file: PathBuf,
}

impl WallClock {
    /// Keeps what it needs in `dir`. Goes as the machine's clock does at first.
    pub fn new(dir: &Path) -> Result<Self> {
        let clock = Self { library: dir.join("wall_clock.so"), file: dir.join("wall_clock") };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/wall_clock.c");
        run(Command::new("cc").args(["-shared", "-fPIC", "-O2", "-o"]).arg(&clock.library).arg(source))?;
        clock.write(0)?;
        Ok(clock)
    }

    /// Sets it ahead of the machine's.
    pub fn ahead(&self, by: Duration) -> Result<()> {
        self.write(by.as_secs() as i64)
    }

    /// Sets it back behind the machine's.
    pub fn behind(&self, by: Duration) -> Result<()> {
        self.write(-(by.as_secs() as i64))
    }

    /// In place: brokers have it mapped.
    fn write(&self, seconds: i64) -> Result<()> {
        let file = File::options().create(true).truncate(false).write(true).open(&self.file)?;
        Ok(file.write_all_at(&seconds.to_ne_bytes(), 0)?)
    }

    /// Brokers started so go by it.
    pub fn of(&self, options: BrokerOptions) -> BrokerOptions {
        options
            .env("LD_PRELOAD", &self.library.display().to_string())
            .env("TAFFRAIL_TEST_WALL_CLOCK", &self.file.display().to_string())
    }
}
