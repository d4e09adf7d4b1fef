//! What can go wrong in storage, by fact.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::ErrorKind;

use super::shared::Shared;

/// A write, an opening or a change of metadata failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// The batch does not begin at the log's end (R5).
    #[error("batch begins at offset {base} but the log ends at {end}")]
    WrongOffset {
        /// Of the batch.
        base: i64,
        /// Of the log.
        end: i64,
    },
    /// A truncation or trim outside of the log, or an epoch that does not rise.
    #[error("{operation} to {to} is outside of the log ({start} to {end})")]
    OutOfBounds {
        /// What was asked.
        operation: &'static str,
        /// The bound that was asked for.
        to: i64,
        /// Of the log.
        start: i64,
        /// Of the log.
        end: i64,
    },
    /// The disk is full up to the reserve. Free space or raise the volume; writing goes on by itself.
    #[error("disk is full: {free} bytes free, {reserve} are kept in reserve")]
    DiskFull {
        /// Bytes free.
        free: u64,
        /// Bytes kept.
        reserve: u64,
    },
    /// An earlier write failed: nothing is written until the broker is started again.
    #[error("storage takes no more writes: {0}")]
    Failed(Arc<str>),
    /// The storage was closed.
    #[error("storage is closed")]
    Closed,
    /// The log was deleted.
    #[error("log {0} does not exist")]
    NoSuchLog(u32),
    /// Another process has the directory.
    #[error("{dir} is in use by process {pid}: stop it first, or choose another --data-dir")]
    InUse {
        /// The directory.
        dir: String,
        /// The holder.
        pid: String,
    },
    /// The data was written by a newer version.
    #[error("{dir} has format version {found}, this program reads up to {known}: use a newer taffrail-broker")]
    NewerFormat {
        /// The directory.
        dir: String,
        /// On disk.
        found: u32,
        /// Of this program.
        known: u32,
    },
    /// Stored bytes are damaged in a way that concerns more than single offsets.
    #[error("{file} is damaged at byte {at}: {what}")]
    Damaged {
        /// The file.
        file: String,
        /// Where.
        at: u64,
        /// What was found.
        what: String,
    },
    /// The file system or RocksDB said no.
    #[error("{doing}: {cause}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What was answered.
        cause: Arc<str>,
    },
}

impl StorageError {
    /// The file system or RocksDB said no.
    pub(crate) fn io(doing: &'static str, cause: &dyn std::fmt::Display) -> Self {
        Self::Io { doing, cause: cause.to_string().into() }
    }

    /// Stored bytes are damaged; `file` is what is known of the place.
    pub(crate) fn damaged(file: &Path, part: &str, what: &dyn std::fmt::Display) -> Self {
        Self::Damaged { file: file.display().to_string(), at: 0, what: format!("{part}: {what}") }
    }

    /// RocksDB, which has its files in `dir`, could not read `part`: the place is the one that it names.
    pub(crate) fn by_rocksdb(dir: &Path, part: &str, cause: &rocksdb::Error) -> Self {
        if cause.kind() != ErrorKind::Corruption {
            return Self::io("read the database", &format!("{part}: {cause}"));
        }
        let what = format!("{part}: {cause}");
        match place(cause.as_ref()) {
            Some((file, at)) => Self::Damaged { file, at, what },
            None => Self::Damaged { file: dir.display().to_string(), at: 0, what },
        }
    }

    /// The database in `dir` does not open. Damage if RocksDB says so or misses a file; then it names the file, or it is the
    /// one that says which others there are.
    pub(crate) fn unopened(dir: &Path, cause: &rocksdb::Error) -> Self {
        let what = format!("the database does not open: {cause}");
        let misses = cause.kind() == ErrorKind::IOError && cause.as_ref().contains("No such file");
        if cause.kind() != ErrorKind::Corruption && !misses {
            return Self::Io { doing: "open the database", cause: format!("{}: {cause}", dir.display()).into() };
        }
        match place(cause.as_ref()) {
            Some((file, at)) => Self::Damaged { file, at, what },
            None => Self::Damaged { file: manifest(dir).display().to_string(), at: 0, what },
        }
    }

    /// The write-ahead log of the batches is damaged: all else can be read, and a person can decide to go on without what
    /// lies behind the damage (D6).
    pub fn is_log_damage(&self) -> bool {
        let Self::Damaged { file, .. } = self else { return false };
        let file = Path::new(file);
        let of_batches = file.parent().is_some_and(|dir| dir.ends_with(Shared::data_dir(Path::new(""))));
        of_batches && file.extension().is_some_and(|extension| extension == "log")
    }
}

/// File and byte in a message of RocksDB 11 ("… in FILE offset BYTE size …", `table/format.cc`).
fn place(message: &str) -> Option<(String, u64)> {
    let (before, behind) = message.rsplit_once(" offset ")?;
    let (_, file) = before.split_once(" in /")?;
    let at = behind.split(' ').next()?.parse().ok()?;
    Some((format!("/{file}"), at))
}

/// The file that names all others: the one that `CURRENT` tells, or `CURRENT` itself if there is none of that name.
fn manifest(dir: &Path) -> PathBuf {
    let current = dir.join("CURRENT");
    let named = std::fs::read_to_string(&current).ok().map(|name| dir.join(name.trim()));
    named.filter(|file| file.is_file()).unwrap_or(current)
}

/// A read failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset is not in the log.
    #[error("offset {offset} is outside of the log ({start} to {end})")]
    OutOfRange {
        /// Asked for.
        offset: i64,
        /// First there is.
        start: i64,
        /// First there is not yet.
        end: i64,
    },
    /// The bytes at this offset fail their checksum, or are not where they should be; other offsets are not concerned.
    #[error("stored data of offsets {first} to {last} is damaged: {what}")]
    Corrupt {
        /// First offset concerned.
        first: i64,
        /// Last offset concerned.
        last: i64,
        /// What was found.
        what: String,
    },
    /// The file system or RocksDB said no.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_taken_from_what_rocksdb_says() {
        let said = "Corruption: block checksum mismatch: stored = 1, computed = 2, type = 4  in /a b/000012.sst offset 65 size 9";
        assert_eq!(place(said), Some(("/a b/000012.sst".to_owned(), 65)));
        assert_eq!(place("Corruption: bad block in a file"), None);
    }
}
