//! Partitions of which nobody is left that has every acknowledged record for sure: the longest log leads once all have told where
//! theirs end, or nobody does before a person has decided (L7, L8).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use taffrail_e2e::boot_id::BootId;
use taffrail_e2e::kubernetes::members::{Failover, Members};

use super::numbers;

/// How long nobody may lead what waits for a broker or for a person: several rounds of the controller.
const LEADERLESS: Duration = Duration::from_secs(4);

/// The command line is wrong.
const USAGE: i32 = 2;

/// The state of the one partition of a topic.
fn state(members: &Members, topic: &str) -> Result<Value> {
    members.partitions(&members.topic_id(topic)?)?.into_iter().next().context("it has no partition")
}

/// Waits until nobody leads the topic, for a reason that has these words in it, and sees that it stays so.
fn wait_leaderless(members: &Members, topic: &str, why: &str) -> Result<()> {
    let waits = |state: &Value| state["leader"].is_null() && state["fault"].as_str().is_some_and(|f| f.contains(why));
    members.wait(&format!("nobody leads {topic}: {why}"), || Ok(waits(&state(members, topic)?)))?;
    let begin = Instant::now();
    while begin.elapsed() < LEADERLESS {
        let state = state(members, topic)?;
        ensure!(waits(&state), "{topic}: {state}\n{}", members.dump());
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Why a condition of a Topic is as it is, in one word.
fn reason(members: &Members, topic: &str, type_: &str) -> Result<String> {
    let topic = members.json(&format!("get topic {topic}"))?;
    let mut conditions = topic["status"]["conditions"].as_array().into_iter().flatten();
    let found = conditions.find(|condition| condition["type"] == type_);
    Ok(found.and_then(|condition| condition["reason"].as_str()).unwrap_or_default().to_owned())
}

/// Waits for an Event of this reason on a Topic.
fn wait_event(members: &Members, topic: &str, reason: &str) -> Result<()> {
    let shown = "jsonpath={range .items[*]}{.involvedObject.kind}/{.involvedObject.name} {.reason}{\"\\n\"}{end}";
    let wanted = format!("Topic/{topic} {reason}");
    members.wait(&format!("the Event {wanted}"), || {
        Ok(members.kubectl(&["get", "events", "-o", shown])?.ok()?.lines().any(|line| line == wanted))
    })
}

/// Leaderships that brokers took without proof since they started.
fn possible_losses(members: &mut Members, brokers: &[usize]) -> Result<f64> {
    let of = |broker: &usize| members.broker(*broker)?.metric("taffrail_replication_possible_losses_total");
    brokers.iter().map(of).sum()
}

/// Lets a topic wait for a person whatever its brokers tell. There is no field of a Topic for it: it is in the slice alone.
fn make_strict(members: &Members, topic: &str) -> Result<()> {
    let id = members.topic_id(topic)?;
    members.wait("the slice is changed", || {
        let slice = members.slices(&id)?.into_iter().next().context("it has no slice")?;
        let name = slice["metadata"]["name"].as_str().context("name")?;
        let epoch = slice["spec"]["partitions"][0]["partitionEpoch"].as_i64().context("partitionEpoch")?;
        let patch = json!([
            { "op": "test", "path": "/spec/partitions/0/partitionEpoch", "value": epoch },
            { "op": "add", "path": "/spec/partitions/0/partitionEpoch", "value": epoch + 1 },
            { "op": "add", "path": "/spec/partitions/0/uncleanRecovery", "value": "None" },
        ]);
        // The controller may have written in between.
        let patched = members.kubectl(&["patch", "partitionslice", name, "--type=json", "-p", &patch.to_string()])?;
        Ok(patched.code == Some(0))
    })
}

#[test]
fn l7_l8_the_longest_log_leads_once_all_have_told_or_nobody_until_a_person_decides() -> Result<()> {
    let mut members = Members::start_with(3, Failover::QUICK)?;
    for topic in ["balanced", "strict"] {
        members.apply_topic(topic, 1, ", replicationFactor: 3, config: {minInSyncReplicas: 2}")?;
        members.wait_topic(topic)?;
        members.wait_in_sync(&members.topic_id(topic)?, 3)?;
        members.cli(0, &format!("produce {topic}"), &numbers(0..200).join("\n"))?.ok()?;
    }
    make_strict(&members, "strict")?;
    members.wait_in_sync(&members.topic_id("strict")?, 3)?;

    // All go at once, and come back on a kernel that was started anew: none can prove that it has everything.
    for broker in 0..3 {
        members.signal(broker, Signal::KILL)?;
    }
    let dir = tempfile::tempdir()?;
    let boot = BootId::new(dir.path())?;
    let options: Vec<_> = (0..3).map(|broker| Ok((broker, boot.of(members.kill(broker)?)))).collect::<Result<_>>()?;
    members.restart_all(&options[..2])?;
    for topic in ["balanced", "strict"] {
        wait_leaderless(&members, topic, "broker 2 does not answer")?;
        members.wait("the Topic says so", || Ok(reason(&members, topic, "Ready")? == "PartitionsWithoutLeader"))?;
        wait_event(&members, topic, "PartitionsWithoutLeader")?;
    }
    let leaderless = members.broker(0)?.metric("taffrail_replication_leaderless_partitions")?;
    ensure!(leaderless >= 2.0, "{leaderless} partitions are told to be without a leader");

    members.restart_all(&options[2..])?;
    members.wait_in_sync(&members.topic_id("balanced")?, 3)?;
    let balanced = state(&members, "balanced")?;
    ensure!(balanced["uncleanLeaderEpoch"].is_i64(), "it was elected with proof: {balanced}");
    let losses = possible_losses(&mut members, &[0, 1, 2])?;
    ensure!(losses >= 1.0, "no broker counts a possible loss");

    // The other does not, though all have told.
    wait_leaderless(&members, "strict", "uncleanRecovery is None")?;
    ensure!(reason(&members, "strict", "PossibleLoss")? == "NoneKnown", "nothing is given up yet");
    let said = members.cli(0, "topic recover strict --partition 0 --leader 1", "")?.failed(USAGE)?;
    ensure!(said.contains("--accept-data-loss"), "{said}");
    ensure!(state(&members, "strict")?["leader"].is_null(), "somebody leads it without a command");
    // The broker that is asked may have heard less.
    let recover = "topic recover strict --partition 0 --leader 1 --accept-data-loss";
    members.wait("the command is carried out", || Ok(members.cli(0, recover, "")?.code == Some(0)))?;
    members.wait_in_sync(&members.topic_id("strict")?, 3)?;
    for topic in ["balanced", "strict"] {
        members.wait("the possible loss is on record", || {
            Ok(["UncleanRecovery", "Recovered"].contains(&reason(&members, topic, "PossibleLoss")?.as_str()))
        })?;
        members.wait_condition(&format!("topic/{topic}"), "Ready")?;
        // The machine's kernel has stayed up: nothing was lost in truth.
        let is_whole = || Ok(members.consume(0, topic).is_ok_and(|read| read == numbers(0..200)));
        members.wait("all records are there", is_whole)?;
    }
    Ok(())
}

/// The one replica that has everything sleeps, and wakes when a person has given up what it alone has.
#[test]
fn l8_t4_who_had_more_than_the_replica_that_a_person_chose_gives_it_up_and_follows() -> Result<()> {
    let mut members = Members::start_with(2, Failover::QUICK)?;
    members.apply_topic("flights", 1, ", replicationFactor: 2, config: {minInSyncReplicas: 1}")?;
    members.wait_topic("flights")?;
    let id = members.topic_id("flights")?;
    members.wait_in_sync(&id, 2)?;
    members.cli(0, "produce flights", &numbers(0..100).join("\n"))?.ok()?;
    let owner = members.leaders(&id)?.first().copied().flatten().context("nobody leads")?;
    let heir = 1 - owner;
    let options = members.kill(heir)?;
    members.wait("the owner is alone in sync", || {
        Ok(state(&members, "flights")?["isr"].as_array().is_some_and(|isr| isr.len() == 1))
    })?;
    members.cli(owner, "produce flights", &numbers(100..150).join("\n"))?.ok()?;

    members.signal(owner, Signal::STOP)?;
    members.restart(heir, &options)?;
    wait_leaderless(&members, "flights", &format!("broker {owner} does not answer"))?;
    ensure!(reason(&members, "flights", "PossibleLoss")? == "NoneKnown", "nothing is given up yet");
    let recover = format!("topic recover flights --partition 0 --leader {heir} --accept-data-loss");
    members.wait("the command is carried out", || Ok(members.cli(heir, &recover, "")?.code == Some(0)))?;
    members.wait_condition("topic/flights", "PossibleLoss")?;
    ensure!(reason(&members, "flights", "PossibleLoss")? == "UncleanRecovery");
    wait_event(&members, "flights", "UncleanRecovery")?;
    let losses = possible_losses(&mut members, &[heir])?;
    ensure!(losses >= 1.0, "the broker counts no possible loss");
    let recovering = members.broker(heir)?.metric("taffrail_replication_recovering_partitions")?;
    ensure!(recovering >= 1.0, "the broker does not say that it recovers");
    members.wait("what the heir has is read", || {
        Ok(members.consume(heir, "flights").is_ok_and(|read| read == numbers(0..100)))
    })?;
    members.cli(heir, "produce flights", &numbers(1_000..1_010).join("\n"))?.ok()?;

    members.signal(owner, Signal::CONT)?;
    members.wait_in_sync(&id, 2)?;
    members.wait_condition("topic/flights", "PossibleLoss=False")?;
    ensure!(reason(&members, "flights", "PossibleLoss")? == "Recovered", "it stays on record");
    let mut expected = [numbers(0..100), numbers(1_000..1_010)].concat();
    expected.sort();
    for broker in 0..2 {
        let same = || Ok(members.consume(broker, "flights").is_ok_and(|read| read == expected));
        members.wait("the replicas agree", same)?;
    }
    Ok(())
}
