//! One sitting: where it works, how much of everything it does, and brokers to do it on.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::probe::Usage;
use super::profile::{Profiler, Recording};
use crate::process::{Broker, BrokerOptions, taffrail};

/// Bytes of a mebibyte.
pub const MIB: u64 = 1 << 20;

/// Settings of a sitting.
#[derive(Clone, Debug)]
pub struct Sitting {
    /// On the disk that is measured; emptied.
    pub dir: PathBuf,
    /// Rounds of each figure.
    pub rounds: usize,
    /// Bytes that a throughput figure moves in each round.
    pub bytes: u64,
    /// Takes profiles, in a run that is for them.
    pub profiler: Option<Profiler>,
}

impl Sitting {
    /// Rounds of what takes minutes: three will do.
    pub fn long_rounds(&self) -> usize {
        self.rounds.min(3)
    }

    /// Begins to record processes if a profile of one of these figures is wanted.
    pub fn record(&self, figures: &[&str], pids: &[u32]) -> Result<Option<Recording>> {
        self.profiler.as_ref().map_or(Ok(None), |profiler| profiler.record(figures, pids))
    }

    /// Ends a recording.
    pub fn keep(&self, recording: Option<Recording>) -> Result<()> {
        match (&self.profiler, recording) {
            (Some(profiler), Some(recording)) => profiler.keep(recording),
            _ => Ok(()),
        }
    }

    /// A clean folder of this name.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join(name);
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// A broker on an empty folder, with topics: name, partitions, configuration as YAML flow ("durability: disk").
    pub fn broker(&self, name: &str, topics: &[(&str, u32, &str)], args: &[&str]) -> Result<Broker> {
        let dir = self.folder(name)?;
        let manifest = dir.join("topics.yaml");
        std::fs::write(&manifest, topics.iter().map(manifest_of).collect::<String>())?;
        let options = BrokerOptions::new(&dir)?.args(["--manifest".to_owned(), manifest.display().to_string()]);
        options.args(args.iter().copied()).start()
    }

    /// Stops a broker and removes what it stored.
    pub fn discard(&self, broker: Broker) -> Result<()> {
        let (status, options) = broker.stop()?;
        ensure!(status.success(), "the broker ended with {status}: see {}", options.log.display());
        let dir = options.data_dir.parent().unwrap_or_else(|| Path::new("."));
        Ok(std::fs::remove_dir_all(dir)?)
    }
}

fn manifest_of((name, partitions, config): &(&str, u32, &str)) -> String {
    format!(
        "apiVersion: taffrail.dev/v1alpha1\nkind: Topic\nmetadata: {{ name: {name} }}\n\
         spec: {{ partitions: {partitions}, config: {{ {config} }} }}\n---\n"
    )
}

/// What a broker used while something ran.
pub async fn used<T>(broker: &Broker, work: impl Future<Output = Result<T>>) -> Result<(T, Usage)> {
    let before = Usage::of(broker.pid())?;
    let done = work.await?;
    Ok((done, Usage::of(broker.pid())?.since(before)))
}

/// What `taffrail bench … -o json` prints.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientReport {
    /// Records a second.
    pub records_per_second: f64,
    /// Where it was measured.
    pub latency_ms: Option<ClientLatency>,
}

/// Percentiles in milliseconds.
#[derive(Debug, Deserialize)]
pub struct ClientLatency {
    /// Half were faster.
    pub p50: f64,
    /// 99 of 100 were faster.
    pub p99: f64,
}

/// Runs `taffrail bench` with these arguments against a broker, for these figures.
pub fn client_bench(sitting: &Sitting, figures: &[&str], broker: &Broker, args: &[&str]) -> Result<ClientReport> {
    let mut command = taffrail(&broker.endpoint())?;
    command.arg("bench").args(args).args(["-o", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let client = command.spawn()?;
    let recording = sitting.record(figures, &[broker.pid(), client.id()])?;
    let out = client.wait_with_output()?;
    sitting.keep(recording)?;
    ensure!(out.status.success(), "taffrail bench {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).context("output of taffrail bench")
}

/// The same at these addresses, without a profile.
pub fn client_bench_at(bootstrap: &str, args: &[&str]) -> Result<ClientReport> {
    let out = taffrail(bootstrap)?.arg("bench").args(args).args(["-o", "json"]).output()?;
    ensure!(out.status.success(), "taffrail bench {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).context("output of taffrail bench")
}
