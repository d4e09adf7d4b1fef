//! `make bench`: takes every figure against the limits of this machine in the same sitting and writes the report.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use taffrail_e2e::bench::figures::Figures;
use taffrail_e2e::bench::sitting::Sitting;
use taffrail_e2e::bench::{client, probe, produce, report, scale};

/// Measures Taffrail against the limits of this machine.
#[derive(Debug, Parser)]
struct Options {
    /// Folder on the disk to be measured; needs 30 GB.
    #[arg(long, env = "TAFFRAIL_BENCH_DIR")]
    dir: Option<PathBuf>,
    /// Rounds of each figure.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// GiB that a throughput figure moves in each round.
    #[arg(long, default_value_t = 4)]
    gib: u64,
    /// Only these parts.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Where the report goes.
    #[arg(long, default_value = "e2e/bench")]
    report: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Throughput of produce over gRPC, its CPU time and write amplification.
    Produce,
    /// Small records and tail latency through the client library.
    Client,
    /// 10,000 partitions.
    Many,
    /// Memory at rest.
    Rest,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let cache = std::env::var_os("TAFFRAIL_CACHE").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = options.dir.clone().unwrap_or_else(|| cache.join("bench"));
    let sitting = Sitting { dir, rounds: options.rounds, bytes: options.gib << 30 };
    let wanted = |part| options.only.is_empty() || options.only.contains(&part);
    let (mut figures, begin) = (Figures::default(), Instant::now());
    for part in Part::value_variants().iter().copied().filter(|part| wanted(*part)) {
        println!("{part:?}");
        match part {
            Part::Produce => produce::run(&sitting, &mut figures).await,
            Part::Client => client::run(&sitting, &mut figures),
            Part::Many => scale::many(&sitting, &mut figures).await,
            Part::Rest => scale::rest(&sitting, &mut figures).await,
        }
        .with_context(|| format!("{part:?}"))?;
    }
    write_report(&options, figures, begin)
}

fn write_report(options: &Options, figures: Figures, begin: Instant) -> Result<()> {
    let (rows, missing) = figures.finish();
    std::fs::create_dir_all(&options.report)?;
    let mut text = format!(
        "# Measurements\n\nWritten by `make bench`, not by hand. {}; Taffrail {}; {} rounds, {} GiB a round, {:.0} min in all.\n\
         MB = 10^6 bytes. Limits were taken in the same sitting, interleaved. `os`: in the kernel before the acknowledgement; \
         `disk`: on the device.\n\n{}\n![each figure against what it must reach](figures.svg)\n",
        probe::machine()?,
        env!("CARGO_PKG_VERSION"),
        options.rounds,
        options.gib,
        begin.elapsed().as_secs_f64() / 60.0,
        report::table(&rows),
    );
    if !missing.is_empty() {
        text += &["\nNot taken in this run: ", &missing.join("; "), ".\n"].concat();
    }
    std::fs::write(options.report.join("REPORT.md"), &text)?;
    std::fs::write(options.report.join("figures.json"), serde_json::to_string_pretty(&rows)?)?;
    report::plot(&rows, &options.report.join("figures.svg"))?;
    println!("\n{}\nwritten to {}", report::table(&rows), options.report.display());
    Ok(())
}
