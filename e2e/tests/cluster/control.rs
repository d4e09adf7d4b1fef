//! The cluster without its controller, or without the API: what is served goes on, what is to be changed waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use taffrail_client::{Client, Position};
use taffrail_e2e::group::{Entry, MemberOptions};
use taffrail_e2e::kubernetes::ApiServer;
use taffrail_e2e::kubernetes::members::{Failover, Members};
use taffrail_e2e::writers::{Load, Writers, check};

const LEASE: &str = "main-controller";

/// How long the API is away: several times as long as any Lease and any session of the brokers.
const AWAY: Duration = Duration::from_secs(20);

/// How long a record may take on a busy machine: less than a Lease and a session, which nothing may wait for.
const SLOW: Duration = Duration::from_secs(5);

fn patch_lease(members: &Members, spec: &Value) -> Result<()> {
    let patch = serde_json::json!({ "spec": spec }).to_string();
    members.kubectl(&["patch", "lease", LEASE, "--type=merge", "--patch", &patch])?.ok().map(drop)
}

#[test]
fn a_lease_that_is_deleted_stolen_or_spoilt_costs_time_only() -> Result<()> {
    let members = Members::start(2)?;
    members.apply_topic("before", 4, "")?;
    members.wait_topic("before")?;
    let epoch = || -> Result<i64> {
        let state = members.json("get clusterstate main")?;
        state["spec"]["controllerEpoch"].as_i64().context("controllerEpoch")
    };
    let mut last = epoch()?;
    let works = |name: &str| -> Result<()> {
        members.apply_topic(name, 2, "")?;
        members.wait_condition(&format!("topic/{name}"), "Ready")?;
        // The broker that is asked may hear of the topic a moment later than kubectl.
        members.wait("the topic is written", || {
            Ok(members.cli(0, &format!("produce {name}"), "a\nb\nc")?.code == Some(0))
        })?;
        members.wait("the topic is whole", || Ok(members.consume(1, name).is_ok_and(|read| read == ["a", "b", "c"])))
    };

    members.kubectl(&["delete", "lease", LEASE])?.ok()?;
    works("after-deletion")?;
    // The topic may have been made by who held it, before its next beat.
    members.wait("there is a Lease again", || Ok(members.kubectl(&["get", "lease", LEASE])?.code == Some(0)))?;

    patch_lease(&members, &serde_json::json!({ "holderIdentity": "somebody/else" }))?;
    works("after-theft")?;
    // The topic may have been made by who had not noticed yet.
    members.wait("the Lease is taken back", || {
        Ok(members.json(&format!("get lease {LEASE}"))?["spec"]["holderIdentity"] != "somebody/else")
    })?;
    members.wait("whoever takes it is a new controller", || Ok(epoch()? > last))?;
    last = epoch()?;

    patch_lease(
        &members,
        &serde_json::json!({ "renewTime": null, "leaseDurationSeconds": 1, "leaseTransitions": 0, "holderIdentity": "" }),
    )?;
    works("after-edit")?;
    ensure!(epoch()? >= last, "the epoch never falls");
    ensure!(members.consume(0, "before")?.is_empty(), "what was there is served");
    Ok(())
}

/// Writers keep a topic busy while the controller sleeps beyond its Lease.
#[tokio::test(flavor = "multi_thread")]
async fn m14_a_controller_that_sleeps_is_replaced_and_loses_nothing_when_it_wakes() -> Result<()> {
    let members = tokio::task::spawn_blocking(|| Members::start_with(3, Failover::DEFAULT)).await??;
    members.apply_topic("flights", 6, "")?;
    // Of one replica: where the sleeper follows, acks=all waits for it until it is fenced.
    members.apply_topic("beside", 6, ", replicationFactor: 1")?;
    members.wait_topic("flights")?;
    members.wait_topic("beside")?;
    let id = members.topic_id("beside")?;
    let sleeper = members.controller()?.context("somebody is controller")?;
    let other = (sleeper + 1) % 3;
    let client = Client::connect(&*members.bootstrap())?;
    let load = Load::to("flights").padding(100).pause(Duration::from_millis(2));
    let writers = Writers::start(&client, &load, 0)?;
    writers.wait_for(200).await?;

    let leaders = members.leaders(&id)?;
    let elsewhere = leaders.iter().position(|leader| leader.is_some_and(|leader| leader != sleeper));
    let elsewhere = elsewhere.context("another broker leads a partition")?;
    members.signal(sleeper, Signal::STOP)?;
    let begin = Instant::now();
    let watched = watch_failover(&members, sleeper, other, elsewhere);
    members.signal(sleeper, Signal::CONT)?;
    watched.with_context(|| members.dump())?;
    eprintln!("slept {:?}", begin.elapsed());

    members.wait_condition("topic/flights", "Ready")?;
    members.wait("nobody is fenced", || {
        let brokers = members.json("get brokers")?;
        Ok(brokers["items"].as_array().is_some_and(|all| all.iter().all(|b| b["spec"]["fenced"] == false)))
    })?;
    writers.wait_for(1_000).await?;
    let history = writers.stop().await?;
    check(&client, "flights", &history).await?;
    Ok(())
}

/// While the controller sleeps: partitions of others are written without a pause, another becomes controller, and topics
/// can be made.
fn watch_failover(members: &Members, sleeper: usize, other: usize, partition: usize) -> Result<()> {
    let mut slowest = Duration::ZERO;
    members.wait("another controller", || {
        let begin = Instant::now();
        members.cli(other, &format!("produce beside --partition {partition}"), "x")?.ok()?;
        slowest = slowest.max(begin.elapsed());
        Ok(members.controller()?.is_some_and(|controller| controller != sleeper))
    })?;
    ensure!(slowest < SLOW, "a write to a partition of another broker took {slowest:?}");
    members.wait("the sleeper is fenced", || {
        Ok(members.json(&format!("get broker main-{sleeper}"))?["spec"]["fenced"] == true)
    })?;
    members.apply_topic("meanwhile", 2, ", replicationFactor: 2")?;
    members.wait_condition("topic/meanwhile", "Ready")
}

fn signal(pid: u32, signal: Signal) -> Result<()> {
    Ok(kill_process(Pid::from_raw(i32::try_from(pid)?).context("process id")?, signal)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn m13_while_the_api_is_away_producers_and_consumers_see_nothing_of_it() -> Result<()> {
    let start = || -> Result<_> {
        let api = Arc::new(ApiServer::start()?);
        let members = Members::start_at(api.clone(), 2)?;
        Ok((api, members))
    };
    let (api, members) = tokio::task::spawn_blocking(start).await??;
    members.apply_topic("flights", 4, "")?;
    members.wait_topic("flights")?;
    let incarnations = || -> Result<Vec<Value>> {
        let brokers = members.json("get brokers")?;
        let of = |broker: &Value| serde_json::json!([broker["spec"]["incarnation"], broker["spec"]["fenced"]]);
        Ok(brokers["items"].as_array().into_iter().flatten().map(of).collect())
    };
    let (before, slices) = (incarnations()?, members.slices(&members.topic_id("flights")?)?);
    let client = Client::connect(&*members.bootstrap())?;
    // Whoever must be patient has failed.
    let load = Load::to("flights").padding(100).pause(Duration::from_millis(5)).patience(2 * SLOW);
    let writers = Writers::start(&client, &load, 0)?;
    writers.wait_for(100).await?;
    let dir = tempfile::tempdir()?;
    let member = MemberOptions::new(&members.bootstrap(), "g", "flights").start(dir.path(), "m")?;
    let diary = member.wait(Duration::from_secs(90), |diary| diary.owned().len() == 4 && diary.records().count() > 50);
    let moves = diary.with_context(|| members.dump())?.moves();
    let mut consumer = client.consumer().topic("flights").from(Position::Earliest).build().await?;
    let reader = tokio::spawn(async move {
        let (mut read, end) = (0_u64, tokio::time::sleep(AWAY + Duration::from_secs(1)));
        tokio::pin!(end);
        loop {
            tokio::select! {
                record = consumer.next() => { record.context("the consumer ended")??; read += 1; }
                () = &mut end => return anyhow::Ok(read),
            }
        }
    });

    let [_, server] = api.pids();
    signal(server, Signal::STOP)?;
    let (acked, mut slowest) = (writers.acked(), Duration::ZERO);
    let begin = Instant::now();
    while begin.elapsed() < AWAY {
        let step = Instant::now();
        let progress = writers.wait_for(50).await;
        if progress.is_err() {
            signal(server, Signal::CONT)?;
        }
        progress?;
        slowest = slowest.max(step.elapsed());
    }
    let written = writers.acked() - acked;
    let diary = member.diary()?;
    signal(server, Signal::CONT)?;
    let read = reader.await??;
    let history = writers.stop().await?;
    eprintln!("{written} written meanwhile, {read} read, longest pause {slowest:?}");
    ensure!(history.acked() == history.len(), "{} of {} are acknowledged", history.acked(), history.len());
    ensure!(read > acked + written / 2, "only {read} were read");
    let fenced = diary.entries.iter().any(|entry| matches!(entry, Entry::Fenced(_)));
    ensure!(diary.moves() == moves && !fenced, "the group has moved partitions: {} moves", diary.moves() - moves);
    let processed = diary.records().count() as u64;
    ensure!(processed > acked + written / 2, "the group processed only {processed}");
    ensure!(slowest < SLOW, "writers stood still for {slowest:?}");

    // Nobody has been given up, no leader has changed, and topics can be made again.
    tokio::time::sleep(Duration::from_secs(7)).await;
    ensure!(incarnations()? == before, "{:?} were {before:?}", incarnations()?);
    let same = |slices: &[Value]| slices.iter().map(|slice| slice["spec"].clone()).collect::<Vec<_>>();
    ensure!(same(&members.slices(&members.topic_id("flights")?)?) == same(&slices), "slices have changed");
    members.apply_topic("afterwards", 2, "")?;
    members.wait_condition("topic/afterwards", "Ready")?;
    check(&client, "flights", &history).await?;
    Ok(())
}
