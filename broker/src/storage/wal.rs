//! Scan of RocksDB's write-ahead log, before RocksDB opens it.
//!
//! RocksDB reads a log up to the first bad byte and silently drops what follows, which is right for a torn tail and loses
//! acknowledged records if the byte was damaged (no option changes this while log files are recycled). This scan tells the
//! two apart (D5, D6); it only reads, and holds one block at a time.
//!
//! # Format (RocksDB 11, `db/log_format.h`)
//!
//! A log file is a sequence of 32 KiB blocks. A fragment never crosses a block's end; it has a header of 11 bytes, little
//! endian: masked CRC32C of all behind it `u32`, length `u16`, type `u8`, the low half of the log's number `u32`. (Types 1
//! to 4 are the same without the number, 7 bytes: files that are not recycled.) A record is one `Full` fragment or a
//! `First`, any number of `Middle` and a `Last`. A block's rest that cannot hold a header is zero. Behind the last record of
//! a recycled file lie older records with other numbers. A record is a `WriteBatch`: first sequence `u64`, count `u32`, then
//! entries; any of the first bytes may lie in a later fragment than the others.
//!
//! # Sync marks
//!
//! The first entry of each batch of the data database is log data (tag 3, length 8) with the highest sequence that was known
//! to be synced, `u64` big endian ([`sync_mark`]). After a power failure pages that were never synced may be missing before
//! others that are there; a mark at or above the first missing sequence proves that synced records are gone.

mod fragment;
mod manifest;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use self::fragment::{Head, Kind, Physical, physical};
use super::StorageError;

const BLOCK: usize = 32 * 1024;
const READ: usize = 32 * BLOCK;
/// The smallest entry of a batch: tag, and a key of one byte with its length.
const MIN_ENTRY: u64 = 3;

/// The log data that each batch begins with; see the module.
pub fn sync_mark(synced: u64) -> [u8; 8] {
    synced.to_be_bytes()
}

/// What was found in a directory's log files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In the order in which they were written.
    pub files: Vec<WalFile>,
}

/// One log file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WalFile {
    /// Its path.
    pub path: PathBuf,
    /// Its number.
    pub number: u64,
    /// Records read.
    pub records: u64,
    /// Sequence of its first entry; 0 without records.
    pub first_sequence: u64,
    /// Sequence that follows its last entry; 0 without records.
    pub next_sequence: u64,
    /// End of the last whole record, bytes.
    pub end: u64,
    /// The highest sequence that a record in it knows to be synced.
    pub mark: u64,
    /// Why reading ended before the file did.
    pub stop: Option<Stop>,
    /// What lies behind the stop although nothing of this log should.
    pub beyond: Option<Beyond>,
}

/// The first byte that is not part of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Stop {
    /// Position in the file.
    pub at: u64,
    /// What is there.
    pub what: &'static str,
}

/// Records of a log behind its first bad byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Beyond {
    /// Position of the first.
    pub at: u64,
    /// The highest sequence that one of them knows to be synced.
    pub mark: u64,
}

/// Scans the log files in `dir` that RocksDB will read. `survived`: the kernel that took the writes still runs, so that whatever was written is
/// there in order; otherwise only what was synced must be there.
pub fn scan(dir: &Path, survived: bool) -> Result<Report, StorageError> {
    let io = |cause: std::io::Error| StorageError::Io {
        doing: "read the write-ahead log",
        cause: Arc::from(format!("{}: {cause}", dir.display())),
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let (Some(number), Some("log")) = (number, path.extension().and_then(|e| e.to_str())) {
            paths.push((number, path));
        }
    }
    let needed = manifest::oldest_needed(dir).map_err(io)?;
    paths.retain(|&(number, _)| number >= needed);
    paths.sort();
    let mut report = Report::default();
    for (number, path) in paths {
        let expected = report.files.iter().rev().map(|file| file.next_sequence).find(|&next| next > 0);
        report.files.push(scan_file(path, number, expected).map_err(io)?);
    }
    report.judge(survived)?;
    Ok(report)
}

/// `expected`: the sequence with which the file should begin.
fn scan_file(path: PathBuf, number: u64, expected: Option<u64>) -> std::io::Result<WalFile> {
    let mut file = File::open(&path)?;
    let mut scanner = Scanner::new(path, number, expected);
    let (mut at, mut buffer) = (0u64, vec![0; READ]);
    loop {
        let filled = fill(&mut file, &mut buffer)?;
        for block in buffer[..filled].chunks(BLOCK) {
            scanner.block(at, block);
            at += block.len() as u64;
        }
        if filled < READ {
            return Ok(scanner.finish(at));
        }
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

impl Report {
    /// Refuses what cannot be the traces of a process's death (`survived`), or else of a power failure.
    fn judge(&self, survived: bool) -> Result<(), StorageError> {
        let chain = self.chain();
        for (i, file) in chain.iter().enumerate() {
            let later = &chain[i + 1..];
            // An earlier start went on exactly where this file stops, so it has seen and accepted the stop.
            if later.first().is_some_and(|next| next.first_sequence == file.next_sequence) {
                continue;
            }
            let beyond_mark = file.beyond.map_or(0, |beyond| beyond.mark);
            let mark = later.iter().map(|file| file.highest_mark()).fold(beyond_mark, u64::max);
            let lost_synced = mark > 0 && mark >= file.next_sequence;
            if if survived { file.beyond.is_some() || !later.is_empty() } else { lost_synced } {
                return Err(file.damaged(later.first().copied()));
            }
        }
        Ok(())
    }

    /// Files whose records count: not those that begin at or above the beginning of a later one, which an earlier start
    /// has given up, and not those that hold nothing.
    fn chain(&self) -> Vec<&WalFile> {
        let mut chain: Vec<&WalFile> = Vec::new();
        for file in self.files.iter().filter(|file| file.records > 0 || file.beyond.is_some()) {
            if file.records > 0 {
                while chain.last().is_some_and(|before| before.first_sequence >= file.first_sequence) {
                    chain.pop();
                }
            }
            chain.push(file);
        }
        chain
    }
}

impl WalFile {
    fn highest_mark(&self) -> u64 {
        self.mark.max(self.beyond.map_or(0, |beyond| beyond.mark))
    }

    fn damaged(&self, next: Option<&Self>) -> StorageError {
        let reason = self.stop.map_or("the file ends", |stop| stop.what);
        let what = match (self.beyond, next) {
            (Some(beyond), _) => format!("{reason}, but records of this log follow from byte {}", beyond.at),
            (None, Some(next)) => format!(
                "{reason} before sequence {}, but {} begins with {}: the records between are gone",
                self.next_sequence,
                next.path.display(),
                next.first_sequence
            ),
            (None, None) => reason.to_owned(),
        };
        let at = self.stop.map_or(self.end, |stop| stop.at);
        StorageError::Damaged { file: self.path.display().to_string(), at, what }
    }
}

/// Reads a log file block by block.
struct Scanner {
    low_number: u32,
    file: WalFile,
    /// Sequence of the next record, if that is known.
    next: Option<u64>,
    /// The record that is being read.
    open: Option<Head>,
}

impl Scanner {
    fn new(path: PathBuf, number: u64, next: Option<u64>) -> Self {
        Self { low_number: number as u32, file: WalFile { path, number, ..WalFile::default() }, next, open: None }
    }

    fn finish(mut self, len: u64) -> WalFile {
        if self.open.is_some() && self.file.stop.is_none() {
            self.file.stop = Some(Stop { at: len, what: "the file ends within a record" });
        }
        self.file
    }

    fn block(&mut self, start: u64, block: &[u8]) {
        if self.file.stop.is_some() {
            return self.search_block(start, block);
        }
        let mut at = 0;
        while at < block.len() {
            let here = start + at as u64;
            let what = match physical(block, at, self.low_number) {
                Physical::Padding => return,
                Physical::Fragment { kind, payload, len } => match self.take(kind, payload, here + len as u64) {
                    Ok(()) => {
                        at += len;
                        continue;
                    }
                    Err(what) => {
                        self.note_beyond(here, kind, payload);
                        what
                    }
                },
                Physical::Older(_) => "a record of an older log",
                Physical::Bad(what) => what,
            };
            self.file.stop = Some(Stop { at: here, what });
            return self.search_rest(start, block, at);
        }
    }

    /// Takes the next fragment, which ends at `end`; what is wrong with it if it cannot be the next.
    fn take(&mut self, kind: Kind, payload: &[u8], end: u64) -> Result<(), &'static str> {
        let head = match (kind, self.open.take()) {
            (Kind::Note, open) => {
                self.open = open;
                return Ok(());
            }
            (Kind::Full, None) => Head::of(payload),
            (Kind::First, None) => {
                self.open = Some(Head::of(payload));
                return Ok(());
            }
            (Kind::Middle, Some(mut head)) => {
                head.extend(payload);
                self.open = Some(head);
                return Ok(());
            }
            (Kind::Last, Some(mut head)) => {
                head.extend(payload);
                head
            }
            (Kind::Full | Kind::First, Some(_)) => return Err("a record begins within another"),
            (Kind::Middle | Kind::Last, None) => return Err("a record without a beginning"),
        };
        let (sequence, count) = head.batch().ok_or("a record that is shorter than its header")?;
        if self.file.records == 0 {
            self.file.first_sequence = sequence;
        } else if sequence != self.file.next_sequence {
            return Err("a record whose sequence does not follow");
        }
        self.file.records += 1;
        self.file.next_sequence = sequence.saturating_add(u64::from(count));
        self.next = Some(self.file.next_sequence);
        self.file.end = end;
        self.file.mark = self.file.mark.max(head.mark());
        Ok(())
    }

    /// Looks behind the stop at `from` for records, in the rest of its block. They may begin at any byte, and so may what
    /// clients once sent, in the stale bytes of a recycled file: only a record counts whose sequence can follow that soon.
    fn search_rest(&mut self, start: u64, block: &[u8], from: usize) {
        for at in from + 1..block.len() {
            let Physical::Fragment { kind: kind @ (Kind::Full | Kind::First), payload, .. } =
                physical(block, at, self.low_number)
            else {
                continue;
            };
            let at = start + at as u64;
            let room = (at - self.file.end) / MIN_ENTRY;
            let near = |s: u64| self.next.is_none_or(|next| (next..=next.saturating_add(room)).contains(&s));
            if Head::of(payload).batch().is_some_and(|(sequence, _)| near(sequence)) {
                self.note_beyond(at, kind, payload);
            }
        }
    }

    /// Looks for fragments in a block behind the stop, from its beginning, where a fragment always begins.
    fn search_block(&mut self, start: u64, block: &[u8]) {
        let mut at = 0;
        while at < block.len() {
            match physical(block, at, self.low_number) {
                Physical::Fragment { kind, payload, len } => {
                    self.note_beyond(start + at as u64, kind, payload);
                    at += len;
                }
                Physical::Older(len) => at += len,
                Physical::Padding | Physical::Bad(_) => return,
            }
        }
    }

    fn note_beyond(&mut self, at: u64, kind: Kind, payload: &[u8]) {
        let begins = matches!(kind, Kind::Full | Kind::First);
        let mark = if begins { Head::of(payload).mark() } else { 0 };
        let beyond = self.file.beyond.get_or_insert(Beyond { at, mark });
        beyond.mark = beyond.mark.max(mark);
    }
}

#[cfg(test)]
mod tests;
