//! The kernel as a broker sees it: one with another boot id, as after a loss of power, though this machine's stays up and nothing
//! that was written is lost. A library in front of the C library (`boot_id.c`), since our Rust has no `unsafe`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use uuid::Uuid;

use crate::loop_volume::run;
use crate::process::BrokerOptions;

/// A boot id that no kernel has.
#[derive(Debug)]
pub struct BootId {
    library: PathBuf,
    file: PathBuf,
}

impl BootId {
    /// Keeps what it needs in `dir`.
    pub fn new(dir: &Path) -> Result<Self> {
        let boot = Self { library: dir.join("boot_id.so"), file: dir.join("boot_id") };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/boot_id.c");
        run(Command::new("cc").args(["-shared", "-fPIC", "-O2", "-o"]).arg(&boot.library).arg(source))?;
        std::fs::write(&boot.file, format!("{}\n", Uuid::new_v4()))?;
        Ok(boot)
    }

    /// Brokers started so run on that kernel.
    pub fn of(&self, options: BrokerOptions) -> BrokerOptions {
        options
            .env("LD_PRELOAD", &self.library.display().to_string())
            .env("TAFFRAIL_TEST_BOOT_ID", &self.file.display().to_string())
    }
}
