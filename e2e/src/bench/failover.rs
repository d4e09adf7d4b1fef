//! Brokers that die, stop and come back empty under load: how long producers wait, how fast partitions have leaders again, and
//! how fast a replica is copied.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use taffrail_client::Client;
use tokio::task::block_in_place;

use super::cluster::{BROKERS, loads, measure, topic};
use super::figures::Figures;
use super::limits;
use super::load::ProduceLoad;
use super::sitting::Sitting;
use crate::kubernetes::members::{Failover, Members};
use crate::writers::{Load, Writers};

const PATIENCE: Duration = Duration::from_mins(3);
/// Partitions of the topic that producers write to while brokers die.
const PARTITIONS: i32 = 6;
/// Acknowledgements of each partition that show that it goes on.
const ENOUGH: u64 = 50;
/// A rate at which copying is not throttled, and what holds if nobody says otherwise.
const CATCH_UP: (&str, &str) = ("10Gi", "100Mi");

/// The rows about failover.
pub async fn run(sitting: &Sitting, figures: &mut Figures) -> Result<()> {
    for _ in 0..sitting.long_rounds() {
        block_in_place(|| with_defaults(figures))?;
        block_in_place(|| tuned(figures))?;
        copied(sitting, figures).await?;
        block_in_place(|| led_anew(figures))?;
    }
    Ok(())
}

fn with_defaults(figures: &mut Figures) -> Result<()> {
    let mut members = Members::start_with(BROKERS, Failover::DEFAULT)?;
    topic(&members, "under", 3)?;
    let others = |members: &Members, of: Option<usize>| -> Result<usize> {
        let leaders = members.leaders(&members.topic_id("under")?)?;
        let other = leaders.into_iter().flatten().find(|leader| Some(*leader) != of);
        other.context("all partitions are led by the controller")
    };
    let controller = members.controller()?;
    let leader = others(&members, controller)?;
    let gap = killed(&mut members, leader)?;
    figures.add("gap-leader", gap.as_secs_f64(), "session of 6 s, the default; two producers, 6 partitions, min ISR 2");
    let controller = members.controller()?.context("nobody is controller")?;
    let gap = killed(&mut members, controller)?;
    figures.add("gap-controller", gap.as_secs_f64(), "session and Lease of 6 s, the defaults");
    rolled(&mut members, figures)
}

fn tuned(figures: &mut Figures) -> Result<()> {
    let mut members = Members::start_with(BROKERS, Failover::TUNED)?;
    topic(&members, "under", 3)?;
    let controller = members.controller()?.context("nobody is controller")?;
    let gap = killed(&mut members, controller)?;
    figures.add("gap-tuned", gap.as_secs_f64(), "the broker that is killed leads partitions and is controller");
    Ok(())
}

/// The longest time for which a partition acknowledged nothing when this broker was killed. It is back in the end.
fn killed(members: &mut Members, broker: usize) -> Result<Duration> {
    let writers = begin(members)?;
    let options = members.kill(broker)?;
    goes_on(&writers)?;
    let gap = writers.longest_pause();
    runtime().block_on(writers.stop())?;
    members.restart(broker, &options)?;
    members.wait_in_sync(&members.topic_id("under")?, BROKERS)?;
    Ok(gap)
}

fn rolled(members: &mut Members, figures: &mut Figures) -> Result<()> {
    let writers = begin(members)?;
    let mut longest = Duration::ZERO;
    for broker in 0..BROKERS {
        let options = members.stop(broker)?;
        goes_on(&writers)?;
        longest = longest.max(writers.longest_pause());
        members.restart(broker, &options)?;
        members.wait_in_sync(&members.topic_id("under")?, BROKERS)?;
    }
    figures.add("gap-handover", longest.as_secs_f64() * 1e3, "of three brokers, one after the other");
    let history = runtime().block_on(writers.stop())?;
    let (failed, acked) = (history.len() - history.acked(), history.acked());
    let latency = history.latency(990).context("nothing was acknowledged")?;
    figures.add("roll-failed", failed as f64, &format!("{acked} succeeded"));
    figures.add(
        "roll-p99",
        latency.as_secs_f64() * 1e3,
        "of the whole roll, with what came before and after each stop",
    );
    Ok(())
}

fn runtime() -> tokio::runtime::Handle {
    tokio::runtime::Handle::current()
}

fn begin(members: &Members) -> Result<Writers> {
    let client = Client::connect(&*members.bootstrap())?;
    let load = Load::to("under").padding(100).pause(Duration::from_millis(2));
    let writers = Writers::start(&client, &load, rand::random::<u32>().into())?;
    goes_on(&writers)?;
    Ok(writers)
}

fn goes_on(writers: &Writers) -> Result<()> {
    runtime().block_on(writers.wait_for_each(PARTITIONS, ENOUGH, PATIENCE))?;
    Ok(())
}

/// A broker that comes back without its volume.
async fn copied(sitting: &Sitting, figures: &mut Figures) -> Result<()> {
    let mut members = block_in_place(|| Members::start_with(BROKERS, Failover::QUICK))?;
    block_in_place(|| topic(&members, "copied", 3))?;
    let bytes = sitting.bytes / 4;
    let dir = sitting.folder("limits")?;
    let l_disk = figures.limit("L_disk", block_in_place(|| limits::disk_append(&dir, bytes))?);
    std::fs::remove_dir_all(dir)?;
    let begin = Instant::now();
    measure(&members, &loads(&members, "copied", bytes, 0)?).await?;
    let most = bytes as f64 / begin.elapsed().as_secs_f64();

    block_in_place(|| catch_up_rate(&members, CATCH_UP.0))?;
    let began = block_in_place(|| emptied(&mut members))?;
    block_in_place(|| members.wait_in_sync(&members.topic_id("copied")?, BROKERS))?;
    let rate = bytes as f64 / began.elapsed().as_secs_f64() / 1e6;
    figures.add("catch-up", rate / l_disk, &format!("{rate:.0} MB/s, from the broker's start until all is in sync"));

    block_in_place(|| catch_up_rate(&members, CATCH_UP.1))?;
    let mut paced = loads(&members, "copied", bytes, 0)?;
    for load in &mut paced {
        load.pace = Some(most / 2.0 / load.batch.len() as f64 / BROKERS as f64);
    }
    let began = block_in_place(|| emptied(&mut members))?;
    let asked = bytes as f64 / (most / 2.0);
    let (waited, kept) = tokio::join!(in_sync(&members), produced(&paced));
    waited?;
    let (rate, took) = (bytes as f64 / began.elapsed().as_secs_f64() / 1e6, kept?);
    figures.add("catch-up-beside", rate, &format!("catchUpRate of {}, the default", CATCH_UP.1));
    let note = format!("{:.0} MB/s were asked for, 64 KiB batches, acks all", most / 2e6);
    figures.add("catch-up-producers", asked / took.as_secs_f64(), &note);
    Ok(())
}

async fn produced(loads: &[ProduceLoad]) -> Result<Duration> {
    let begin = Instant::now();
    futures::future::try_join_all(loads.iter().map(ProduceLoad::run)).await?;
    Ok(begin.elapsed())
}

async fn in_sync(members: &Members) -> Result<()> {
    loop {
        let whole = block_in_place(|| -> Result<bool> {
            let partitions = members.partitions(&members.topic_id("copied")?)?;
            Ok(partitions.iter().all(|partition| partition["isr"].as_array().is_some_and(|isr| isr.len() == BROKERS)))
        })?;
        if whole {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn catch_up_rate(members: &Members, rate: &str) -> Result<()> {
    let patch = format!("{{\"spec\":{{\"catchUpRate\":\"{rate}\"}}}}");
    members.kubectl(&["patch", "clusters.taffrail.dev", "main", "--type", "merge", "-p", &patch])?.ok()?;
    Ok(())
}

/// The last broker dies, loses its volume, and is started again: when that was. Others lead what it led.
fn emptied(members: &mut Members) -> Result<Instant> {
    let broker = BROKERS - 1;
    let options = members.kill(broker)?;
    let topic = members.topic_id("copied")?;
    members.wait("others lead", || {
        Ok(members.leaders(&topic)?.iter().all(|leader| leader.is_some_and(|leader| leader != broker)))
    })?;
    std::fs::remove_dir_all(&options.data_dir)?;
    let began = Instant::now();
    members.restart(broker, &options)?;
    Ok(began)
}

/// A broker of 10,000 partitions is killed: until all that it led is led by others.
fn led_anew(figures: &mut Figures) -> Result<()> {
    for (figure, topics, partitions) in [("led-anew-large", 1, 10_000), ("led-anew-small", 1_000, 10)] {
        let mut members = Members::start_with(BROKERS, Failover::DEFAULT)?;
        placed(&members, topics, partitions)?;
        let broker = members.controller()?.map_or(0, |controller| (controller + 1) % BROKERS);
        members.kill(broker)?;
        let began = Instant::now();
        wait_led(&members, topics * partitions, Some(broker))?;
        let note = "session of 6 s included; seen by a list of all slices every 0.2 s";
        figures.add(figure, began.elapsed().as_secs_f64(), note);
    }
    Ok(())
}

fn placed(members: &Members, topics: usize, partitions: usize) -> Result<()> {
    let mut manifest = String::new();
    for number in 0..topics {
        writeln!(
            manifest,
            "---\napiVersion: taffrail.dev/v1alpha1\nkind: Topic\nmetadata: {{name: of-{number}}}\n\
             spec: {{clusterRef: {{name: main}}, partitions: {partitions}, replicationFactor: 3}}"
        )?;
    }
    members.apply(&manifest)?;
    wait_led(members, topics * partitions, None)
}

/// Waits until there are so many partitions, and each is led, by another than this broker, with all others in sync.
fn wait_led(members: &Members, partitions: usize, but: Option<usize>) -> Result<()> {
    let begin = Instant::now();
    let template = "jsonpath={range .items[*].spec.partitions[*]}{.leader} {.isr[*].broker};{end}";
    let (but, in_sync) = (but.map(|broker| broker.to_string()), if but.is_some() { BROKERS - 1 } else { BROKERS });
    loop {
        let slices = members.kubectl(&["get", "partitionslices", "-o", template])?.ok()?;
        let is_led = |partition: &str| {
            let mut brokers = partition.split_whitespace();
            let leader = brokers.next();
            leader.is_some() && leader != but.as_deref() && brokers.count() >= in_sync
        };
        if slices.split_terminator(';').count() >= partitions && slices.split_terminator(';').all(is_led) {
            return Ok(());
        }
        ensure!(begin.elapsed() < PATIENCE, "not all partitions are led after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}
