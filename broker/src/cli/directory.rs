//! Commands on a data directory that no broker uses: `inspect`, `verify`, `recover`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use uuid::Uuid;

use super::{Exit, Output, print};
use crate::metadata::embedded::topic_names;
use crate::storage::inspect::{Depth, Inspection};
use crate::storage::{Engine, EngineOptions, Log, Storage as _, StorageError, inspect};

/// Which directory.
#[derive(Args, Debug)]
struct Directory {
    /// The data directory.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "taffrail-data",
        env = "TAFFRAIL_DATA_DIR",
        hide_env_values = true
    )]
    data_dir: PathBuf,
}

#[derive(Args, Debug)]
pub(super) struct Inspect {
    #[command(flatten)]
    directory: Directory,
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args, Debug)]
pub(super) struct Verify {
    #[command(flatten)]
    directory: Directory,
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Inspect {
    pub(super) fn run(&self) -> Exit {
        look(&self.directory.data_dir, Depth::Footers, self.output)
    }
}

impl Verify {
    pub(super) fn run(&self) -> Exit {
        look(&self.directory.data_dir, Depth::EveryByte, self.output)
    }
}

/// Reads a directory and shows what it holds; damage is an exit code of its own.
fn look(dir: &Path, depth: Depth, output: Output) -> Exit {
    let (found, names) = match inspect::Directory::open(dir) {
        Ok(directory) => {
            let names = topic_names(directory.meta()).unwrap_or_default();
            (directory.inspect(depth), names)
        }
        Err(error) => return fail(&error),
    };
    let text = match output {
        Output::Table => table(&found, &names, depth),
        Output::Json => json(&found, &names),
    };
    match print(&text) {
        Exit::Done if !found.faults.is_empty() => Exit::Damaged,
        exit => exit,
    }
}

type Names = BTreeMap<Uuid, String>;

fn table(found: &Inspection, names: &Names, depth: Depth) -> String {
    let Inspection {
        format_version, storage_id, incarnation, clean, sealed_epochs, open_epochs, replaced_epochs, ..
    } = found;
    let ended = if *clean { "closed properly" } else { "not closed: in use until a crash" };
    let mut out = format!(
        "format {format_version}, storage {storage_id}, start number {incarnation}, {ended}\n\
         storage epochs: {sealed_epochs} complete, {open_epochs} open, {replaced_epochs} replaced\n\
         batches of deleted topics: {} bytes\n\n",
        found.deleted_bytes
    );
    let head = ["TOPIC", "PARTITION", "LOG", "FIRST", "LAST", "BATCHES", "BYTES"].map(str::to_owned);
    let offset = |offset: Option<i64>| offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string());
    let row = |log: &inspect::StoredLog| {
        let topic = names.get(&log.topic_id).cloned().unwrap_or_else(|| log.topic_id.to_string());
        let (first, last) = (offset(log.first_offset), offset(log.last_offset));
        [
            topic,
            log.partition.to_string(),
            log.log.to_string(),
            first,
            last,
            log.batches.to_string(),
            log.bytes.to_string(),
        ]
    };
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(found.logs.iter().map(row)).collect();
    out += &aligned(&rows);
    out.push('\n');
    for fault in &found.faults {
        out += &[&fault.place, ": ", &fault.what, "\n"].concat();
    }
    match (found.faults.len(), depth) {
        (0, Depth::Footers) => out.push_str("nothing wrong in what was read; `verify` reads every byte\n"),
        (0, Depth::EveryByte) => out.push_str("every byte was read and is right\n"),
        (faults, _) => out.push_str(&[&faults.to_string(), " faults\n"].concat()),
    }
    out
}

/// Columns as wide as their longest cell: the first to the left, numbers to the right.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let cell = |(column, text): (usize, &String)| match column {
        0 => format!("{text:<0$}", widths[0]),
        _ => format!("{text:>0$}", widths[column]),
    };
    let line = |row: &[String; N]| row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ") + "\n";
    rows.iter().map(line).collect()
}

fn json(found: &Inspection, names: &Names) -> String {
    let mut document = serde_json::to_value(found).expect("it has only texts, numbers and lists");
    for log in document["logs"].as_array_mut().into_iter().flatten() {
        let id = log["topicId"].as_str().and_then(|id| Uuid::try_parse(id).ok());
        log["topic"] = id.and_then(|id| names.get(&id)).cloned().into();
    }
    format!("{document:#}\n")
}

#[derive(Args, Debug)]
pub(super) struct Recover {
    #[command(flatten)]
    directory: Directory,
    /// Do it: cut the write-ahead log at the damage. Acknowledged records behind it are lost for good. Without this option
    /// the command only says where the damage is and changes nothing.
    #[arg(long)]
    accept_loss: bool,
}

impl Recover {
    pub(super) fn run(&self) -> Exit {
        let dir = &self.directory.data_dir;
        if !dir.is_dir() {
            eprintln!("error: {} is no directory", dir.display());
            return Exit::Failed;
        }
        match Engine::open(dir, EngineOptions::default()).and_then(|engine| settle(&engine)) {
            Ok(_) => print(&format!("{}: nothing is damaged, the broker can start\n", dir.display())),
            Err(damage) if damage.is_log_damage() && self.accept_loss => recover(dir, &damage),
            Err(error) => {
                let exit = fail(&error);
                match &error {
                    StorageError::Damaged { file, at, .. } if error.is_log_damage() => {
                        eprintln!("{}", loss(Path::new(file), *at));
                    }
                    StorageError::Damaged { .. } => {
                        eprintln!("this is no damage of the write-ahead log: restore the data directory from a copy");
                    }
                    _ => {}
                }
                exit
            }
        }
    }
}

/// Opens the directory without what cannot be read.
fn recover(dir: &Path, damage: &StorageError) -> Exit {
    eprintln!("{damage}");
    let options = EngineOptions { accept_loss: true, ..EngineOptions::default() };
    match Engine::open(dir, options).and_then(|engine| settle(&engine)) {
        Ok(logs) => print(&format!(
            "{}: the records behind the damage are given up; {logs} partitions begin a new leader epoch at what is left. \
             The broker can start\n",
            dir.display()
        )),
        Err(error) => fail(&error),
    }
}

/// Closes the directory with the clean mark; answers the number of logs. After a loss every log begins a new leader epoch
/// first, so that a reader that was ahead of the new end is told and never sees other records at offsets it has read (D7):
/// the next start could not know.
fn settle(engine: &Engine) -> Result<usize, StorageError> {
    let logs = engine.logs();
    if !engine.identity().complete {
        logs.iter().try_for_each(raise_epoch)?;
        engine.mark_complete()?;
    }
    engine.close()?;
    Ok(logs.len())
}

fn raise_epoch(log: &Arc<dyn Log>) -> Result<(), StorageError> {
    let next = log.leader_epochs().latest().map_or(0, |epoch| epoch + 1);
    log.begin_epoch(next).blocking_recv().map_err(|_| StorageError::Closed)?
}

/// What lies behind the damage and would be given up.
fn loss(file: &Path, at: u64) -> String {
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |found| found.len());
    let number = |path: &Path| path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
    let is_log = |path: &PathBuf| path.extension().is_some_and(|e| e == "log");
    let entries = file.parent().and_then(|dir| std::fs::read_dir(dir).ok()).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_log);
    let later: u64 = paths.filter(|path| number(path) > number(file)).map(|path| size(&path)).sum();
    let bytes = size(file).saturating_sub(at) + later;
    format!(
        "at most {bytes} bytes of the write-ahead log lie behind the damage, acknowledged records among them. Restore the data \
         directory from a copy, or run this with --accept-loss to go on without them"
    )
}

/// Tells what failed, on standard error.
fn fail(error: &StorageError) -> Exit {
    eprintln!("error: {error}");
    match error {
        StorageError::InUse { .. } => Exit::InUse,
        StorageError::Damaged { .. } => Exit::Damaged,
        _ => Exit::Failed,
    }
}
