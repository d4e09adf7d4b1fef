//! `make bench`: takes every figure against the limits of this machine in the same sitting and writes the report.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use clap::{Parser, ValueEnum};
use taffrail_e2e::bench::environment::Environment;
use taffrail_e2e::bench::figures::Figures;
use taffrail_e2e::bench::parts::{Part, profile};
use taffrail_e2e::bench::report;
use taffrail_e2e::bench::results::Results;
use taffrail_e2e::bench::sitting::Sitting;

// As in the broker, whose storage engine some parts run in this process.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures Taffrail against the limits of this machine. All parts together take about 30 minutes, and up to 8 more where
/// figures are missed and profiled.
#[derive(Debug, Parser)]
struct Options {
    /// Folder on the disk to be measured; needs 30 GB.
    #[arg(long, env = "TAFFRAIL_BENCH_DIR")]
    dir: Option<PathBuf>,
    /// Rounds of each figure; parts that say so do three at most.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// GiB that a throughput figure moves in each round.
    #[arg(long, default_value_t = 4)]
    gib: u64,
    /// Only these parts. The report keeps what earlier runs of the same commit on the same machine took of the others.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// No profiles of figures that are missed.
    #[arg(long)]
    no_profiles: bool,
    /// Where the report goes.
    #[arg(long, default_value = "e2e/bench")]
    report: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(options.rounds > 0 && options.gib > 0, "--rounds and --gib are at least 1");
    taffrail_broker::allocator::configure().map_err(|error| anyhow!("set jemalloc up: {error}"))?;
    let cache = std::env::var_os("TAFFRAIL_CACHE").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = options.dir.clone().unwrap_or_else(|| cache.join("bench"));
    std::fs::create_dir_all(&dir)?;
    let environment = Environment::of(&dir)?;
    let sitting = Sitting { dir, rounds: options.rounds, bytes: options.gib << 30, profiler: None };
    let wanted = |part: &Part| options.only.is_empty() || options.only.contains(part);
    let parts: Vec<Part> = Part::value_variants().iter().copied().filter(wanted).collect();
    let mut results = Results::load(&options.report.join("results.json"), environment);
    let (mut missed, mut faults, begin) = (vec![], vec![], Instant::now());
    for part in parts {
        let mut figures = Figures::default();
        if let Err(fault) = part.run(&sitting, &mut figures).await {
            eprintln!("{fault:#}");
            faults.push(part);
            continue;
        }
        missed.extend(figures.missed().into_iter().map(|figure| (part, figure)));
        results.merge(figures.finish());
        write(&results, &options.report, begin)?;
    }
    if !options.no_profiles {
        results.profiles.extend(profile(&missed, &sitting, &options.report.join("profiles")).await?);
        write(&results, &options.report, begin)?;
    }
    println!("\n{}\nwritten to {}", report::table(&results), options.report.display());
    ensure!(faults.is_empty(), "these parts failed and are as they were before: {faults:?}");
    Ok(())
}

fn write(results: &Results, folder: &Path, begin: Instant) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    results.save(&folder.join("results.json"))?;
    std::fs::write(folder.join("REPORT.md"), report::markdown(results, begin.elapsed().as_secs_f64() / 60.0))?;
    remove_old_profiles(results, &folder.join("profiles"))?;
    report::plot(results, &folder.join("figures.svg"))
}

/// Flame graphs of other commits, or of figures that are not missed any more.
fn remove_old_profiles(results: &Results, folder: &Path) -> Result<()> {
    let Ok(files) = std::fs::read_dir(folder) else { return Ok(()) };
    for file in files {
        let file = file?;
        if results.profiles.iter().all(|profile| *profile.svg != *file.file_name()) {
            std::fs::remove_file(file.path())?;
        }
    }
    Ok(())
}
