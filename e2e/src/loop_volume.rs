//! An ext4 file system of its own in a file: small, so that it fills up; apart, so that it can lose power.
//!
//! Mounting needs root. Everything is undone when the volume goes out of scope; what a killed test left behind is undone by
//! the next one.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, geteuid, test_kill_process};

/// Set it to pass without the tests that need root.
pub const SKIP: &str = "TAFFRAIL_SKIP_ROOT_TESTS";
/// The ioctl EXT4_IOC_SHUTDOWN (linux/fs/ext4/ext4.h, `_IOR('X', 125, __u32)`) without flushing the journal, of the file system
/// that the argument is on. It is made by Python, since our Rust has no `unsafe`.
pub const SHUT_DOWN: &str = "import fcntl, os, struct, sys\n\
    EXT4_IOC_SHUTDOWN, NOLOGFLUSH = 0x8004587D, 2\n\
    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), EXT4_IOC_SHUTDOWN, struct.pack('I', NOLOGFLUSH))";
const PREFIX: &str = "taffrail-volume-";

/// Whether tests that need root may run; an error when they could neither run nor were told to be skipped.
pub fn root() -> Result<bool> {
    if geteuid().is_root() {
        return Ok(true);
    }
    ensure!(
        std::env::var_os(SKIP).is_some_and(|value| value == "1"),
        "this test mounts file systems: run it as root, or set {SKIP}=1 to do without it"
    );
    eprintln!("skipped: {SKIP}=1");
    Ok(false)
}

/// A mounted volume.
#[derive(Debug)]
pub struct LoopVolume {
    /// Holds the image and the mount point.
    dir: PathBuf,
}

impl LoopVolume {
    /// Makes one of so many MiB and mounts it.
    pub fn new(mib: u64) -> Result<Self> {
        sweep();
        let dir = tempfile::Builder::new().prefix(&format!("{PREFIX}{}-", std::process::id())).tempdir()?.keep();
        let volume = Self { dir };
        std::fs::create_dir(volume.path())?;
        File::create(volume.image())?.set_len(mib << 20)?;
        // Nothing is left to be initialised later: it would write to the volume while the test counts its bytes.
        let options = ["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"];
        run(Command::new("mkfs.ext4").args(options).arg(volume.image()))?;
        volume.mount()?;
        Ok(volume)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.join("mount")
    }

    /// A directory beside the volume, for logs.
    pub fn outside(&self) -> &Path {
        &self.dir
    }

    fn image(&self) -> PathBuf {
        self.dir.join("image")
    }

    fn mount(&self) -> Result<()> {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.path()))
    }

    /// Loses all that was not synced, and fails every access from now on, as a power failure does ([`SHUT_DOWN`]).
    pub fn shut_down(&self) -> Result<()> {
        run(Command::new("python3").args(["-c", SHUT_DOWN]).arg(self.path()))
    }

    /// Mounts it anew, as after a power failure. Nobody may use it any more.
    pub fn remount(&self) -> Result<()> {
        run(Command::new("umount").arg(self.path()))?;
        self.mount()
    }

    /// Lets the file system do what it does on an error of the device: it turns read-only at once.
    pub fn abort(&self) -> Result<()> {
        run(Command::new("mount").args(["-o", "remount,abort"]).arg(self.path()))
    }

    /// Bytes free for anybody.
    pub fn free(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(self.path())?;
        Ok(stat.f_bavail * stat.f_frsize)
    }
}

impl Drop for LoopVolume {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

/// Takes down what is there of a volume, in any state. The loop device goes with its mount.
fn remove(dir: &Path) {
    let mount = dir.join("mount");
    if run(Command::new("mountpoint").arg("-q").arg(&mount)).is_ok() && run(Command::new("umount").arg(&mount)).is_err()
    {
        let _ = run(Command::new("umount").arg("--lazy").arg(&mount));
    }
    let _ = std::fs::remove_dir_all(dir);
}

/// Takes down volumes of tests that are dead.
fn sweep() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse().ok());
        let dead = |pid| Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid).is_err());
        if owner.is_some_and(dead) {
            remove(&path);
        }
    }
}

/// Runs a tool; its own words are the error.
pub fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("run {name}: is it installed (.ci/setup e2e)?"))?;
    if !output.status.success() {
        bail!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
