//! Readers that are served in their own zone (KIP-392), and what becomes of one whose zone loses its broker: 1f.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use taffrail_client::{Client, Position};
use taffrail_e2e::faults::all;
use taffrail_e2e::faults::ground::{BROKERS as COUNT, Ground, IMAGES, Setting};
use taffrail_e2e::faults::trial::{Fault, Trial};
use taffrail_e2e::history::LOAD;
use taffrail_e2e::kubernetes::lab::{self, PATIENCE, until};
use taffrail_e2e::process::http_get;
use taffrail_e2e::writers::{Load, Writers, check};

use crate::{FAILOVER, HEAL};

/// What is read.
const TOPIC: &str = "orders";
const PARTITIONS: i32 = 3;

/// What a broker has sent to readers of the topic since it started, in records.
fn served(ground: &Ground<'_>, broker: i32) -> Result<u64> {
    let (_, body) = http_get((ground.pod(broker).address()?, 9095).into(), "/metrics")?;
    let sample = format!("taffrail_fetched_records_total{{topic=\"{TOPIC}\"}} ");
    // Who has sent none may have no series.
    let value = body.lines().find_map(|line| line.strip_prefix(&sample));
    value.map_or(Ok(0), |value| Ok(value.parse()?))
}

fn served_by_all(ground: &Ground<'_>) -> Result<Vec<u64>> {
    (0..COUNT).map(|broker| served(ground, broker)).collect()
}

/// Reads all that the topic has, from this zone if that can be: how many records.
async fn read_in(client: &Client, zone: &str) -> Result<u64> {
    let consumer = client.consumer().topic(TOPIC).from(Position::Earliest).zone(zone).follow(false);
    let (mut consumer, mut read) = (consumer.build().await?, 0);
    while let Some(record) = consumer.next().await {
        record?;
        read += 1;
    }
    Ok(read)
}

/// Counts what it reads from the beginning on, without an end.
async fn follow_in(client: Client, zone: String, read: Arc<AtomicU64>) -> Result<()> {
    let mut consumer = client.consumer().topic(TOPIC).from(Position::Earliest).zone(zone).build().await?;
    loop {
        consumer.next().await.context("a reader that follows never ends")??;
        read.fetch_add(1, Ordering::Relaxed);
    }
}

/// The zone of a broker, as it tells clients, which must be that of its node.
fn zone_of(ground: &Ground<'_>, trial: &mut Trial, broker: i32) -> Result<String> {
    let zone = ground.namespace().get(&format!("brokers.taffrail.dev/main-{broker}"), ".spec.zone")?;
    let node = ground.pod(broker).node()?;
    trial.must(
        zone == format!("zone-{node}"),
        format!("broker {broker} is on node {node} and says that it is in {zone:?}"),
    );
    Ok(zone)
}

const NEAR: Fault = Fault {
    number: "1f",
    fault: "consumers read in their own zones, and the broker of one zone dies",
    injected: "a reader of each zone (`zone`) in turn, and what each broker has served by its metrics; then SIGKILL of a broker that is not \
               controller while a reader of its zone follows",
    promised: "each reader gets everything, from the broker of its zone alone; the reader whose broker died gets everything \
               that is written meanwhile; safe",
};

#[test]
fn f1_r3_readers_are_served_in_their_own_zone_and_elsewhere_when_its_broker_dies() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&NEAR, async |trial| {
            let ground = Ground::start(lab, "zones", &Setting::default()).await?;
            ground.add_topic(TOPIC, PARTITIONS, "")?;
            let load = Load::to(TOPIC).padding(100).pause(Duration::from_millis(2)).apart(PARTITIONS as u64);
            let writers = Writers::start(ground.client(), &load, 0)?;
            writers.wait_for(2_000).await?;
            let mut history = writers.stop().await?;
            let written = history.acked() as u64;
            // Followers hear of the last high watermark half a second later.
            tokio::time::sleep(Duration::from_secs(1)).await;
            for broker in 0..COUNT {
                let zone = zone_of(&ground, trial, broker)?;
                let before = served_by_all(&ground)?;
                let read = read_in(ground.client(), &zone).await?;
                let after = served_by_all(&ground)?;
                let by: Vec<_> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
                trial.saw(format!(
                    "{read} records read in {zone}, of broker {broker}; served by brokers 0, 1, 2: {by:?}"
                ));
                let elsewhere = by.iter().sum::<u64>() - by[usize::try_from(broker)?];
                trial.must(read == written, format!("{read} of {written} records read in {zone}"));
                trial.must(elsewhere == 0, format!("{elsewhere} records read in {zone} came from other zones"));
            }

            let (broker, _) = ground.leader().await?;
            let (zone, read) = (zone_of(&ground, trial, broker)?, Arc::new(AtomicU64::new(0)));
            let reader = tokio::spawn(follow_in(ground.client().clone(), zone, Arc::clone(&read)));
            let writers = Writers::start(ground.client(), &load, LOAD)?;
            let has = async |wanted: u64| {
                let enough =
                    async || Ok((read.load(Ordering::Relaxed) >= wanted || reader.is_finished()).then_some(()));
                until("the reader has so much", PATIENCE, enough).await
            };
            has(written + 100).await?;
            ground.pod(broker).kill()?;
            ground.goes_on(PATIENCE).await?;
            writers.wait_for_each(PARTITIONS, 80, PATIENCE).await?;
            history.extend(writers.stop().await?);
            let written = history.acked() as u64;
            has(written).await?;
            trial.must(!reader.is_finished(), "the reader that followed has ended");
            trial.saw(format!("{} of {written} records read by who followed", read.load(Ordering::Relaxed)));
            reader.abort();
            check(ground.client(), TOPIC, &history).await?;
            ground.heals(HEAL).await?;
            ground.finish(trial, FAILOVER).await.map(drop)
        })
        .await
    })
}
