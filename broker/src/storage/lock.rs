//! One process for a data directory: an advisory lock on a file that names its holder. The kernel lets go of it when the
//! process dies.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::StorageError;

const FILE: &str = "taffrail.lock";

/// Held as long as it lives.
#[derive(Debug)]
pub(crate) struct DirLock {
    file: File,
}

impl DirLock {
    /// Takes the lock, or says who has it.
    pub(crate) fn take(dir: &Path) -> Result<Self, StorageError> {
        let io = |cause: std::io::Error| StorageError::io("lock the data directory", &cause);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(dir.join(FILE));
        let mut file = open.map_err(io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(in_use(dir, file)),
            Err(errno) => return Err(io(errno.into())),
        }
        file.set_len(0).map_err(io)?;
        file.rewind().map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Self { file })
    }
}

impl Drop for DirLock {
    /// Not left to the closing of the file: a process that was just forked here has it open too, until it becomes its program.
    fn drop(&mut self) {
        if let Err(errno) = flock(&self.file, FlockOperation::Unlock) {
            tracing::warn!(%errno, "the lock of the data directory is only let go of with the process");
        }
    }
}

fn in_use(dir: &Path, file: File) -> StorageError {
    let mut pid = String::new();
    let read = file.take(32).read_to_string(&mut pid);
    let pid = if read.is_ok() && !pid.trim().is_empty() { pid.trim().to_owned() } else { "unknown".to_owned() };
    StorageError::InUse { dir: dir.display().to_string(), pid }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_by_the_pid_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirLock::take(dir.path()).unwrap();
        let refused = DirLock::take(dir.path()).unwrap_err();
        let StorageError::InUse { pid, .. } = refused else { panic!("{refused}") };
        assert_eq!(pid, std::process::id().to_string());
        drop(first);
        DirLock::take(dir.path()).unwrap();
    }

    #[test]
    fn a_child_that_was_just_forked_does_not_keep_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirLock::take(dir.path()).unwrap();
        // As a fork does, this shares the open file.
        let of_child = first.file.try_clone().unwrap();
        drop(first);
        DirLock::take(dir.path()).unwrap();
        drop(of_child);
    }
}
