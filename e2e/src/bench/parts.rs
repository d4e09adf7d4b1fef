//! The parts of the bench, each with rows that are taken together, and the profiles of what is missed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;
use tokio::task::block_in_place;

use super::figures::Figures;
use super::profile::{Profile, Profiler};
use super::sitting::Sitting;
use super::{client, cluster, cold, coordinator, engine, failover, group, hostile, mixed, produce, scale, stream};

/// What can be measured by itself. Minutes are those of two cores and a disk of 1.3 GB/s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Appends to the storage engine alone [3 min].
    Engine,
    /// Reads from disk of one log and of all [2 min].
    Cold,
    /// Disk and writes where retention is mixed; three rounds [3 min].
    Mixed,
    /// What gRPC lets through [1 min].
    Stream,
    /// Throughput of produce over gRPC, its CPU time and write amplification [3 min].
    Produce,
    /// Small records and tail latency through the client library [4 min].
    Client,
    /// 10,000 partitions; three rounds [5 min].
    Many,
    /// Memory at rest; three brokers [3 min].
    Rest,
    /// Consumer groups as applications see them; three rounds [2 min].
    Group,
    /// The coordinator of groups: commits, its start, 10,000 members; three rounds [3 min].
    Coordinator,
    /// 10,000 idle and 200 hostile clients; three rounds; needs root [3 min].
    Hostile,
    /// Three brokers, an operator and an API server: times of objects, calls that are passed on, replicas; three rounds, and ten minutes
    /// in which nothing is asked for [20 min].
    Cluster,
    /// Brokers that die, stop, and come back empty under load; three rounds [12 min].
    Failover,
}

impl Part {
    /// Its name on the command line.
    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// Takes its figures.
    pub async fn run(self, sitting: &Sitting, figures: &mut Figures) -> Result<()> {
        println!("{}", self.name());
        figures.begin(&self.name(), &now());
        match self {
            Self::Engine => block_in_place(|| engine::run(sitting, figures)),
            Self::Cold => block_in_place(|| cold::run(sitting, figures)),
            Self::Mixed => block_in_place(|| mixed::run(sitting, figures)),
            Self::Stream => stream::run(sitting, figures).await,
            Self::Produce => produce::run(sitting, figures).await,
            Self::Client => block_in_place(|| client::run(sitting, figures)),
            Self::Many => scale::many(sitting, figures).await,
            Self::Rest => scale::rest(sitting, figures).await,
            Self::Group => group::run(sitting, figures).await,
            Self::Coordinator => coordinator::run(sitting, figures).await,
            Self::Hostile => hostile::run(sitting, figures).await,
            Self::Cluster => cluster::run(sitting, figures).await,
            Self::Failover => failover::run(sitting, figures).await,
        }
        .with_context(|| format!("part {}", self.name()))
    }

    /// Whether CPU time says anything about its figures.
    fn has_profiles(self) -> bool {
        !matches!(self, Self::Rest | Self::Hostile | Self::Cluster | Self::Failover)
    }
}

/// Runs parts once more, with perf beside the figures that they missed.
pub async fn profile(missed: &[(Part, &'static str)], sitting: &Sitting, out: &Path) -> Result<Vec<Profile>> {
    let told: Vec<_> = missed.iter().filter(|(part, _)| part.has_profiles()).collect();
    if told.is_empty() {
        return Ok(vec![]);
    }
    println!("profiles of what was missed: these samples do not count");
    let profiler = Profiler::new(&sitting.dir, out, told.iter().map(|(_, figure)| *figure).collect())?;
    let sitting = Sitting { rounds: 1, profiler: Some(profiler.clone()), ..sitting.clone() };
    let mut parts: Vec<Part> = told.iter().map(|(part, _)| *part).collect();
    parts.dedup();
    for part in parts {
        part.run(&sitting, &mut Figures::default()).await?;
    }
    Ok(profiler.profiles())
}

/// UTC, to the minute.
fn now() -> String {
    let date = Command::new("date").args(["-u", "+%F %R"]).output();
    date.map_or_else(|_| String::new(), |out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}
