//! Brokers of a cluster and the operator, with their metadata in a real API server.

mod admin;
mod control;
mod groups;
mod identity;
mod losses;
mod plan;
mod quiet;
mod recover;
mod replication;
mod topics;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use taffrail_e2e::kubernetes::members::Members;

/// Numbers as the text of records, sorted.
fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    let mut numbers: Vec<_> = range.map(|n| n.to_string()).collect();
    numbers.sort();
    numbers
}

#[test]
fn a_topic_is_served_by_all_brokers_and_outlives_them() -> Result<()> {
    let mut members = Members::start(3)?;
    let begin = Instant::now();
    members.apply_topic("flights", 6, "")?;
    members.wait_condition("topic/flights", "Ready")?;
    let taken = begin.elapsed();
    // No step has failed several times: each time it is tried again later, after 15 s in all for the fifth.
    ensure!(taken < Duration::from_secs(15), "kubectl wait told of it only after {taken:?}");
    members.wait_topic("flights")?;

    let records = numbers(0..1_000).join("\n");
    members.cli(0, "produce flights", &records)?.ok()?;
    for broker in 0..3 {
        ensure!(members.consume(broker, "flights")? == numbers(0..1_000), "every broker gives all records");
    }

    // A crash, then an orderly stop: the records are there again, and the others went on meanwhile.
    let options = members.kill(1)?;
    members.wait("broker 1 is fenced", || Ok(members.json("get broker main-1")?["spec"]["fenced"] == true))?;
    members.restart(1, &options)?;
    members.wait_condition("topic/flights", "Ready")?;
    ensure!(members.consume(1, "flights")? == numbers(0..1_000), "nothing is lost by a crash");
    let options = members.stop(2)?;
    members.restart(2, &options)?;
    members.wait("all is served again", || Ok(members.consume(0, "flights").is_ok_and(|read| read.len() == 1_000)))?;
    Ok(())
}
