//! What members subscribe to and where they begin: several topics and a pattern, and the reset policies, with a real broker.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::Value;
use taffrail_client::{Client, ClientConfig, ErrorKind, GroupConsumerBuilder, Reason, ResetPolicy};
use taffrail_e2e::cli::cli;
use taffrail_e2e::process::{Broker, BrokerOptions, Process, taffrail};
use tokio::sync::{mpsc, watch};

const PATIENCE: Duration = Duration::from_secs(90);

struct World {
    broker: Broker,
    client: Client,
    runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let broker = BrokerOptions::new(dir.path())?.start()?;
        let runtime = tokio::runtime::Runtime::new()?;
        let client = runtime.block_on(async { Client::connect(ClientConfig::new(&broker.endpoint())) })?;
        Ok(Self { broker, client, runtime, _dir: dir })
    }

    fn ok(&self, arguments: &str, input: &str) -> Result<String> {
        cli(&self.broker.endpoint(), arguments, input)?.ok().with_context(|| arguments.to_owned())
    }

    fn topic(&self, name: &str, partitions: i32) -> Result<()> {
        self.ok(&format!("topic create {name} --partitions {partitions}"), "").map(drop)
    }

    /// Appends records, each under a key of its own.
    fn write(&self, topic: &str, records: usize) -> Result<()> {
        let line = |n: usize| format!("k{n}:v{n}\n");
        let lines: String = (0..records).map(line).collect();
        self.ok(&format!("produce {topic} --quiet --key-separator :"), &lines).map(drop)
    }

    fn group(&self, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.ok(&format!("group describe {name} -o json"), "")?)?)
    }

    fn wait_for(&self, what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
        let begin = Instant::now();
        while !is_so()? {
            anyhow::ensure!(begin.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}\n{}", self.broker.log_tail());
            std::thread::sleep(Duration::from_millis(30));
        }
        Ok(())
    }
}

/// Topic, partition and offset.
type Place = (String, i32, i64);

/// Processes and commits until it is told to stop; tells of each record.
async fn member(
    builder: GroupConsumerBuilder,
    seen: mpsc::UnboundedSender<Place>,
    mut stop: watch::Receiver<bool>,
) -> Result<usize> {
    let (mut consumer, mut count) = (builder.start().await?, 0);
    loop {
        let records = tokio::select! {
            records = consumer.next() => records?.context("it follows")?,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        for record in records {
            let record = record?;
            seen.send((record.topic.to_string(), record.partition, record.offset))?;
            count += 1;
        }
        consumer.commit().await?;
    }
    consumer.close().await?;
    Ok(count)
}

#[test]
fn a_group_over_topics_and_a_pattern_processes_every_record_once_those_of_a_later_topic_too() -> Result<()> {
    let world = World::new()?;
    for (topic, partitions) in [("orders", 4), ("log.a", 3), ("other", 2)] {
        world.topic(topic, partitions)?;
        world.write(topic, 200)?;
    }
    let (tell, mut told) = mpsc::unbounded_channel();
    let (stop, stopped) = watch::channel(false);
    let _inside = world.runtime.enter();
    let members: Vec<_> = (0..2)
        .map(|_| {
            let builder = world.client.group_consumer("g").topics(["orders"]).pattern(r"log\..*");
            tokio::spawn(member(builder, tell.clone(), stopped.clone()))
        })
        .collect();
    let mut seen: Vec<Place> = vec![];
    let mut wait_for = |count: usize| {
        world.wait_for(&format!("{count} records"), || {
            seen.extend(std::iter::from_fn(|| told.try_recv().ok()));
            Ok(seen.len() >= count)
        })
    };
    wait_for(400)?;
    world.wait_for("both members have partitions", || {
        Ok(world.group("g")?["state"] == "stable" && world.group("g")?["members"].as_array().map(Vec::len) == Some(2))
    })?;
    world.topic("log.b", 3)?;
    world.write("log.b", 200)?;
    world.write("orders", 50)?;
    wait_for(650)?;
    world.wait_for("all is committed", || Ok(world.group("g")?["lag"] == 0))?;
    stop.send(true)?;
    let counts: Vec<_> = members.into_iter().map(|member| world.runtime.block_on(member)?).collect::<Result<_>>()?;
    wait_for(0)?;
    assert!(counts.iter().all(|count| *count > 0), "both took part: {counts:?}");
    assert_eq!((seen.len(), seen.iter().collect::<BTreeSet<_>>().len()), (650, 650), "each once");
    let mut by_topic = BTreeMap::new();
    for (topic, ..) in &seen {
        *by_topic.entry(topic.as_str()).or_insert(0) += 1;
    }
    assert_eq!(by_topic, BTreeMap::from([("log.a", 200), ("log.b", 200), ("orders", 250)]));
    Ok(())
}

#[test]
fn a_member_that_may_not_choose_where_to_begin_leaves_and_comes_back_when_it_is_said() -> Result<()> {
    let world = World::new()?;
    world.topic("t", 3)?;
    world.write("t", 30)?;
    let builder = world.client.group_consumer("g").topics(["t"]).reset(ResetPolicy::Fail);
    let mut consumer = world.runtime.block_on(builder.start())?;
    let error = world.runtime.block_on(consumer.next()).err().context("nothing is committed")?;
    assert_eq!((error.kind(), error.reason()), (ErrorKind::NotFound, Reason::NoCommittedOffset));
    assert_eq!(world.group("g")?["state"], "empty", "the partitions are free while the application thinks");
    assert!(consumer.assignment().is_empty());

    world.ok("group reset g t --to earliest", "")?;
    let mut read = 0;
    while read < 30 {
        let records = world.runtime.block_on(consumer.next())?.context("it follows")?;
        read += records.count();
        world.runtime.block_on(consumer.commit())?;
    }
    world.runtime.block_on(consumer.close())?;
    assert_eq!(world.group("g")?["lag"], 0);
    Ok(())
}

#[test]
fn a_member_that_began_at_the_latest_record_and_dies_before_its_first_commit_makes_nobody_skip() -> Result<()> {
    let world = World::new()?;
    world.topic("t", 3)?;
    world.write("t", 30)?;
    let mut command = taffrail(&world.broker.endpoint())?;
    command.args(["consume", "t", "--group", "g", "--reset", "latest", "--follow", "--session-timeout", "2s"]);
    let mut dies = Process(command.stdout(Stdio::null()).spawn()?);
    world.wait_for("it has begun, and where is kept", || {
        let Ok(group) = world.group("g") else { return Ok(false) };
        let partitions = group["partitions"].as_array().context("partitions")?;
        Ok(partitions.len() == 3 && partitions.iter().all(|p| p["committed"] == p["highWatermark"]))
    })?;
    dies.end(Signal::KILL)?;
    world.write("t", 20)?;
    world.wait_for("it is removed", || Ok(world.group("g")?["state"] == "empty"))?;
    let next = world.ok("consume t --group g --reset latest", "")?;
    assert_eq!(next.lines().count(), 20, "what came while nobody read is not skipped");
    Ok(())
}
