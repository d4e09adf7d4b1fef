//! Three brokers beside a real API server, with an operator: how long objects take, what it costs that any broker takes any
//! call, and what replicas cost.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use taffrail_proto::record::Compression;
use tokio::task::block_in_place;

use super::figures::Figures;
use super::limits;
use super::load::{Done, ProduceLoad, batch};
use super::probe::Usage;
use super::sitting::{MIB, Sitting, client_bench_at};
use crate::kubernetes::api_writes::{since, writes};
use crate::kubernetes::members::Members;

pub(super) const BROKERS: usize = 3;
/// Topics that are made one after the other, and at once.
const TOPICS: (usize, usize) = (20, 1_000);
const PATIENCE: Duration = Duration::from_mins(5);
/// How long nothing is asked for, and how long before that.
const IDLE: Duration = Duration::from_mins(10);
const SETTLE: Duration = Duration::from_secs(10);
pub(super) const BATCH_BYTES: usize = 64 << 10;

/// The rows about clusters.
pub async fn run(sitting: &Sitting, figures: &mut Figures) -> Result<()> {
    for round in 0..sitting.long_rounds() {
        let begin = Instant::now();
        let members = block_in_place(|| Members::start(BROKERS))?;
        figures.add("cluster-ready", begin.elapsed().as_secs_f64(), "processes on this machine, no images, no pods");
        forwarded(sitting, &members, figures).await?;
        replicated(sitting, &members, figures).await?;
        block_in_place(|| one_by_one(&members, figures))?;
        block_in_place(|| at_once(&members, figures))?;
        if round == 0 {
            block_in_place(|| idle(&members, figures))?;
        }
    }
    Ok(())
}

/// What is written while nobody wants anything: the Leases.
fn idle(members: &Members, figures: &mut Figures) -> Result<()> {
    // Events about what has just been come late.
    std::thread::sleep(SETTLE);
    let before = writes(members.api())?;
    std::thread::sleep(IDLE);
    let more = since(&writes(members.api())?, &before);
    let others: u64 = more.iter().filter(|(what, _)| !what.ends_with(" leases")).map(|(_, count)| count).sum();
    figures.add("idle-writes", others as f64, &format!("three brokers, 1,022 topics, {IDLE:?}; all writes: {more:?}"));
    Ok(())
}

fn one_by_one(members: &Members, figures: &mut Figures) -> Result<()> {
    let mut times = Histogram::<u64>::new(3)?;
    for number in 0..TOPICS.0 {
        let (name, begin) = (format!("one-{number}"), Instant::now());
        members.apply_topic(&name, 3, "")?;
        members.wait_condition(&format!("topic/{name}"), "Ready")?;
        times.record(begin.elapsed().as_millis() as u64)?;
    }
    let seconds = |percentile| times.value_at_percentile(percentile) as f64 / 1e3;
    let note = format!("{} Topics of 3 partitions, kubectl's two starts included", TOPICS.0);
    figures.add("topic-ready-p50", seconds(50.0), &note);
    figures.add("topic-ready-p99", seconds(99.0), &note);
    Ok(())
}

fn at_once(members: &Members, figures: &mut Figures) -> Result<()> {
    let before = writes(members.api())?;
    let mut manifest = String::new();
    for number in 0..TOPICS.1 {
        writeln!(
            manifest,
            "---\napiVersion: taffrail.dev/v1alpha1\nkind: Topic\nmetadata: {{name: many-{number}}}\n\
             spec: {{clusterRef: {{name: main}}, partitions: 1}}"
        )?;
    }
    let applying = Instant::now();
    members.apply(&manifest)?;
    let (applied, begin) = (applying.elapsed(), Instant::now());
    loop {
        let ready = "jsonpath={range .items[*]}{.status.conditions[?(@.type==\"Ready\")].status} {end}";
        let ready = members.kubectl(&["get", "topics", "-o", ready])?.ok()?;
        if ready.split_whitespace().filter(|status| *status == "True").count() >= TOPICS.1 + TOPICS.0 {
            break;
        }
        if begin.elapsed() > PATIENCE {
            bail!("1,000 Topics are not ready after {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    let note = format!("applied by kubectl in {:.0} s", applied.as_secs_f64());
    figures.add("topics-ready", begin.elapsed().as_secs_f64(), &note);
    // One of them is kubectl's own; Leases are renewed whether there are topics or not.
    let more = since(&writes(members.api())?, &before);
    let count: u64 = more.iter().filter(|(what, _)| !what.ends_with(" leases")).map(|(_, count)| count).sum();
    figures.add("topic-writes", count as f64 / TOPICS.1 as f64, &format!("{more:?}"));
    if let Some(operator) = members.operator_pid() {
        figures.add("operator-memory", Usage::of(operator)?.resident as f64 / MIB as f64, "one replica");
    }
    Ok(())
}

/// What a load did, and the CPU seconds a GiB of all brokers.
pub(super) struct Measured {
    pub(super) done: Vec<Done>,
    pub(super) cpu_per_gib: f64,
}

impl Measured {
    fn p50(&self) -> f64 {
        let sum: f64 = self.done.iter().map(|done| done.latency_ms(50.0)).sum();
        sum / self.done.len() as f64
    }
}

pub(super) async fn measure(members: &Members, loads: &[ProduceLoad]) -> Result<Measured> {
    let cpu = || -> Result<f64> { members.broker_pids().into_iter().map(|pid| Ok(Usage::of(pid)?.cpu_seconds)).sum() };
    let before = cpu()?;
    let done = futures::future::try_join_all(loads.iter().map(ProduceLoad::run)).await?;
    let bytes: u64 = done.iter().map(|done| done.bytes).sum();
    Ok(Measured { done, cpu_per_gib: (cpu()? - before) / (bytes as f64 / f64::from(1 << 30)) })
}

/// One load for each broker, with the partitions that it leads; `shift`: sent to the broker so many numbers further.
pub(super) fn loads(members: &Members, topic: &str, bytes: u64, shift: usize) -> Result<Vec<ProduceLoad>> {
    let leaders = members.leaders(&members.topic_id(topic)?)?;
    let (endpoints, batch) = (members.endpoints(), batch(BATCH_BYTES, 1 << 10, Compression::None)?);
    let load = |broker: usize| ProduceLoad {
        endpoint: endpoints[(broker + shift) % BROKERS].clone(),
        topic: topic.to_owned(),
        partitions: (0..)
            .zip(&leaders)
            .filter(|(_, leader)| **leader == Some(broker))
            .map(|(index, _)| index)
            .collect(),
        batches: bytes / BROKERS as u64 / batch.len() as u64,
        batch: batch.clone(),
        connections: 1,
        window: 20,
        pace: None,
    };
    Ok((0..BROKERS).map(load).collect())
}

async fn forwarded(sitting: &Sitting, members: &Members, figures: &mut Figures) -> Result<()> {
    block_in_place(|| topic(members, "alone", 1))?;
    let bytes = sitting.bytes / 4;
    measure(members, &loads(members, "alone", bytes / 4, 0)?).await?;
    let direct = measure(members, &loads(members, "alone", bytes, 0)?).await?;
    let passed_on = measure(members, &loads(members, "alone", bytes, 1)?).await?;
    let note = format!("{:.2} and {:.2} CPU s/GiB", passed_on.cpu_per_gib, direct.cpu_per_gib);
    figures.add("forward-cpu", passed_on.cpu_per_gib / direct.cpu_per_gib, &note);
    let note = format!("{:.2} and {:.2} ms, 60 batches of 64 KiB in flight", passed_on.p50(), direct.p50());
    figures.add("forward-p50", passed_on.p50() / direct.p50(), &note);
    Ok(())
}

async fn replicated(sitting: &Sitting, members: &Members, figures: &mut Figures) -> Result<()> {
    block_in_place(|| topic(members, "three", 3))?;
    let bytes = sitting.bytes / 4;
    let dir = sitting.folder("limits")?;
    let l_disk = figures.limit("L_disk", block_in_place(|| limits::disk_append(&dir, bytes))?);
    std::fs::remove_dir_all(dir)?;
    measure(members, &loads(members, "three", bytes / 4, 0)?).await?;
    let alone = measure(members, &loads(members, "alone", bytes, 0)?).await?;
    let begin = Instant::now();
    let three = measure(members, &loads(members, "three", bytes, 0)?).await?;
    let moved: u64 = three.done.iter().map(|done| done.bytes).sum();
    let rate = moved as f64 / begin.elapsed().as_secs_f64() / 1e6;
    figures.add(
        "replicated-produce",
        rate / (l_disk / 3.0),
        &format!("{rate:.0} MB/s, brokers and load on one machine"),
    );
    let of_followers = (three.cpu_per_gib - alone.cpu_per_gib) / 2.0;
    let note = format!("{:.2} CPU s/GiB of all brokers, {:.2} without replicas", three.cpu_per_gib, alone.cpu_per_gib);
    figures.add("replicated-cpu", of_followers, &note);
    let mut paced = loads(members, "three", bytes, 0)?;
    for load in &mut paced {
        let batches_a_second = 100e6 / load.batch.len() as f64 / BROKERS as f64;
        load.pace = Some(batches_a_second);
        load.batches = (batches_a_second * 15.0) as u64;
    }
    let paced = measure(members, &paced).await?;
    let worst = paced.done.iter().map(|done| done.latency_ms(99.0)).fold(0.0, f64::max);
    figures.add("replicated-p50", paced.p50(), "64 KiB batches, acks=all, min ISR 2, 15 s");
    figures.add("replicated-p99", worst, "of the worst of three connections");
    let client = block_in_place(|| {
        client_bench_at(&members.bootstrap(), &["produce", "three", "-n", "1000000", "--size", "1024"])
    })?;
    figures.add("replicated-client", client.records_per_second * 1_024.0 / 1e6, "1,000,000 records, client's defaults");
    Ok(())
}

pub(super) fn topic(members: &Members, name: &str, replication_factor: i32) -> Result<()> {
    members.apply_topic(name, 6, &format!(", replicationFactor: {replication_factor}"))?;
    members.wait_condition(&format!("topic/{name}"), "Ready")
}
