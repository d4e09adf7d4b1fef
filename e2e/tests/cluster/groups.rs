//! Consumer groups of a cluster: members at different brokers, a coordinator that is killed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use taffrail_e2e::group::{Diary, Member, MemberOptions, judge};
use taffrail_e2e::kubernetes::members::Members;

use crate::numbers;

const PATIENCE: Duration = Duration::from_secs(90);

pub(super) fn group(members: &Members, broker: usize) -> Result<Value> {
    Ok(serde_json::from_str(&members.cli(broker, "group describe g -o json", "")?.ok()?)?)
}

pub(super) fn wait_read(members: &Members, broker: usize, records: i64) -> Result<()> {
    members.wait("all is read and committed", || {
        let Ok(group) = group(members, broker) else { return Ok(false) };
        let committed = group["partitions"].as_array().into_iter().flatten().filter_map(|p| p["committed"].as_i64());
        Ok(group["lag"] == 0 && committed.sum::<i64>() == records)
    })
}

pub(super) fn ends(members: &Members, broker: usize) -> Result<BTreeMap<i32, i64>> {
    let offsets: Value = serde_json::from_str(&members.cli(broker, "offsets orders -o json", "")?.ok()?)?;
    let end = |o: &Value| Some((i32::try_from(o["partition"].as_i64()?).ok()?, o["end"].as_i64()?));
    Ok(offsets.as_array().context("offsets")?.iter().filter_map(end).collect())
}

#[test]
fn a_group_goes_on_where_it_was_when_its_coordinator_is_killed() -> Result<()> {
    let mut members = Members::start(3)?;
    members.apply_topic("orders", 6, "")?;
    members.wait_topic("orders")?;
    let dir = tempfile::tempdir()?;
    let endpoints = members.endpoints();
    // Each begins with another broker and knows the others too.
    let start = |n: usize| {
        let begin_at: Vec<_> = (0..3).map(|i| endpoints[(n + i) % 3].clone()).collect();
        MemberOptions::new(&begin_at.join(","), "g", "orders").start(dir.path(), &format!("m{n}"))
    };
    let consumers: Vec<Member> = (0..3).map(start).collect::<Result<_>>()?;
    for consumer in &consumers {
        consumer.wait(PATIENCE, |diary| diary.owned().len() == 2).with_context(|| members.dump())?;
    }
    members.cli(0, "produce orders", &numbers(0..1_000).join("\n"))?.ok()?;
    wait_read(&members, 0, 1_000)?;
    let first = ends(&members, 0)?;
    for broker in 0..3 {
        let listed: Value = serde_json::from_str(&members.cli(broker, "group list -o json", "")?.ok()?)?;
        ensure!(listed[0]["group"] == "g", "broker {broker} lists {listed}");
        let described = group(&members, broker)?;
        ensure!(described["members"].as_array().map(Vec::len) == Some(3), "broker {broker} says {described}");
    }

    let coordinator = group(&members, 0)?["coordinator"].as_u64().context("coordinator")?;
    let coordinator = usize::try_from(coordinator)?;
    let options = members.kill(coordinator)?;
    std::thread::sleep(Duration::from_secs(1));
    members.restart(coordinator, &options)?;
    members.cli(0, "produce orders", &numbers(1_000..2_000).join("\n"))?.ok()?;
    wait_read(&members, (coordinator + 1) % 3, 2_000)?;
    let diaries: Vec<Diary> = consumers.into_iter().map(|c| c.end(Signal::TERM)).collect::<Result<_>>()?;
    let verdict = judge(&diaries, &ends(&members, 0)?)?;
    ensure!(verdict.missing.is_empty(), "never processed: {:?}", verdict.missing);
    let again = verdict.again.iter().filter(|(partition, offset)| first.get(partition).is_some_and(|end| offset < end));
    ensure!(again.count() == 0, "committed before the kill and processed again: {:?}", verdict.again);
    Ok(())
}
