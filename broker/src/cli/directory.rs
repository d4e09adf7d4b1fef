//! Commands on a data directory that no broker uses: `inspect`, `verify`, `recover`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::{Exit, print};
use crate::storage::{Engine, EngineOptions, Log, Storage as _, StorageError};

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
        match Engine::open(dir, EngineOptions::default()) {
            Ok(engine) => match engine.close() {
                Ok(()) => print(&format!("{}: nothing is damaged, the broker can start\n", dir.display())),
                Err(error) => fail(&error),
            },
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

/// Opens the directory without what cannot be read. Every log begins a new leader epoch, so that a reader that was ahead of
/// the new end is told and never sees other records at offsets it has read (D7).
fn recover(dir: &Path, damage: &StorageError) -> Exit {
    eprintln!("{damage}");
    let options = EngineOptions { accept_loss: true, ..EngineOptions::default() };
    let recovered = Engine::open(dir, options).and_then(|engine| {
        let logs = engine.logs();
        for log in &logs {
            raise_epoch(log)?;
        }
        engine.close()?;
        Ok(logs.len())
    });
    match recovered {
        Ok(logs) => print(&format!(
            "{}: the records behind the damage are given up; {logs} partitions begin a new leader epoch at what is left. \
             The broker can start\n",
            dir.display()
        )),
        Err(error) => fail(&error),
    }
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
