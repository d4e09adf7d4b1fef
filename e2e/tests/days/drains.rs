//! Drains that do not go straight to their end: one that is called off, and one whose controller dies: 28.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use taffrail_crds::slice::PartitionState;
use taffrail_e2e::faults::all;
use taffrail_e2e::faults::ground::{Ground, IMAGES, Setting};
use taffrail_e2e::faults::trial::{Fault, Trial};
use taffrail_e2e::history::History;
use taffrail_e2e::kubernetes::lab::{self, Lab, Namespace, PATIENCE, until};
use taffrail_e2e::writers::{Load, Writers, check};

use crate::operate::{CLUSTER, pods, wait_ready};
use crate::{BROKERS, HEAL, SMOOTH, SMOOTH_RECORD};

/// The broker that is to go.
const GOING: i32 = 3;

/// Partitions of the topic that moves, two of which have a replica on that broker: the other broker of its zone has the others.
const PARTITIONS: i32 = 4;

/// Mebibytes in them together. At the least rate, one a second, half of them are on their way for longer than a failover takes.
const BLOBS: u64 = 48;

/// How long a partition may acknowledge nothing when the controller dies.
const CONTROLLER: Duration = Duration::from_secs(12);

fn scale(namespace: &Namespace<'_>, brokers: i32) -> Result<()> {
    namespace.kubectl(&["scale", CLUSTER, &format!("--replicas={brokers}")])?.ok().map(drop)
}

fn set_rate(namespace: &Namespace<'_>, rate: &str) -> Result<()> {
    namespace.patch(CLUSTER, &json!({ "spec": { "catchUpRate": rate } }))
}

/// A Cluster of four brokers under load, the last of which has replicas of one more topic, `blobs`, that take a while to copy; with
/// what was written to that.
async fn with_fourth<'a>(lab: &'a Lab, name: &str) -> Result<(Ground<'a>, History)> {
    let ground = Ground::start(lab, name, &Setting::default()).await?;
    let namespace = ground.namespace().clone();
    scale(&namespace, GOING + 1)?;
    namespace.wait(&format!("pod/main-{GOING}"), "condition=Ready", BROKERS)?;
    wait_ready(&namespace)?;
    ground.add_topic("blobs", PARTITIONS, "")?;
    let load = Load::to("blobs").padding((1 << 20) - 1024).pause(Duration::from_millis(200));
    let blobs = Writers::start(ground.client(), &load.apart(PARTITIONS as u64), 0)?;
    blobs.wait_for(BLOBS).await?;
    let blobs = blobs.stop().await?;
    let states = ground.states_of("blobs").await?;
    let there = states.iter().filter(|state| state.replicas.contains(&GOING)).count();
    anyhow::ensure!(there > 0, "nothing was placed on the new broker");
    set_rate(&namespace, "1Mi")?;
    ground.writers().forget_pauses();
    Ok((ground, blobs))
}

/// Where the replicas of the topic are, and whether any of a partition are on their way.
async fn places(ground: &Ground<'_>) -> Result<Vec<(Vec<i32>, bool)>> {
    let place = |state: &PartitionState| (state.replicas.clone(), state.is_moving());
    Ok(ground.states_of("blobs").await?.iter().map(place).collect())
}

/// Part of the condition that says who leaves.
fn draining(namespace: &Namespace<'_>, part: &str) -> Result<String> {
    namespace.get(CLUSTER, &format!(".status.conditions[?(@.type==\"Draining\")].{part}"))
}

/// Waits until replicas are on their way, and the Cluster's status says so: in which words.
async fn wait_moving(namespace: &Namespace<'_>) -> Result<String> {
    until("the Cluster says what moves", PATIENCE, async || {
        let moving = namespace.get(CLUSTER, ".status.movingPartitions")?;
        let leaving = namespace.get(CLUSTER, ".status.drainingBrokers")?;
        let (reason, message) = (draining(namespace, "reason")?, draining(namespace, "message")?);
        let told = leaving == format!("[{GOING}]") && reason == "MovingReplicas" && message.contains("replicas left");
        Ok((told && moving.parse().is_ok_and(|moving: u32| moving > 0)).then_some(message))
    })
    .await
}

const CALLED_OFF: Fault = Fault {
    number: "28c",
    fault: "a broker is to go, and is to stay after all while its replicas move",
    injected: "kubectl scale from 4 to 3 with catchUpRate 1Mi; once the status says that partitions move, kubectl scale to 4",
    promised: "the status says who goes and how much is left; called off, every replica is where it was ≤ 60 s, and condition and Event say \
               so; no broker ends; safe; pauses ≤ 4 s, p99 of acks < 1 s",
};

#[test]
fn f28_i10_a_drain_is_called_off() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&CALLED_OFF, async |trial| {
            let (ground, blobs) = with_fourth(lab, "called-off").await?;
            let namespace = ground.namespace().clone();
            let before = (places(&ground).await?, pods(&namespace)?);
            scale(&namespace, GOING)?;
            trial.saw(wait_moving(&namespace).await?);

            scale(&namespace, GOING + 1)?;
            let begin = Instant::now();
            let back = async || Ok((places(&ground).await? == before.0).then_some(()));
            until("every replica is where it was", BROKERS, back).await?;
            trial.within("every replica is where it was after", begin.elapsed(), HEAL);
            until("condition and Event say that the broker stays", PATIENCE, async || {
                let events = namespace.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"])?.ok()?;
                let moving = namespace.get(CLUSTER, ".status.movingPartitions")?;
                let stays = draining(&namespace, "reason")? == "NobodyLeaves" && moving == "0";
                Ok((stays && events.contains("DrainCancelled")).then_some(()))
            })
            .await?;
            wait_ready(&namespace)?;
            trial.must(pods(&namespace)? == before.1, "a broker has ended");
            check(ground.client(), "blobs", &blobs).await?;
            ground.finish_within(trial, SMOOTH, SMOOTH_RECORD).await.map(drop)
        })
        .await
    })
}

const NO_CONTROLLER: Fault = Fault {
    number: "28d",
    fault: "the controller dies while replicas move",
    injected: "kubectl scale from 4 to 3 with catchUpRate 1Mi; once the status says that partitions move, SIGKILL of the controller; in its next \
               term catchUpRate 100Mi",
    promised: "somebody is controller again ≤ 12 s and goes on with the moves; the broker is gone ≤ 2 min later; safe; pauses ≤ 12 s",
};

#[test]
fn f28_i10_the_controller_dies_while_replicas_move() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&NO_CONTROLLER, async |trial| {
            let (ground, blobs) = with_fourth(lab, "mid-move").await?;
            let namespace = ground.namespace().clone();
            let term = || -> Result<i64> {
                Ok(namespace.get("clusterstates.taffrail.dev/main", ".spec.controllerEpoch")?.parse()?)
            };
            scale(&namespace, GOING)?;
            trial.saw(wait_moving(&namespace).await?);

            let before = term()?;
            ground.pod(ground.controller().await?).kill()?;
            let begin = Instant::now();
            until("a new term begins", PATIENCE, async || Ok((term()? > before).then_some(()))).await?;
            trial.within("somebody is controller again after", begin.elapsed(), CONTROLLER);
            let moving = places(&ground).await?.iter().filter(|(_, moving)| *moving).count();
            trial.must(moving > 0, "all had moved before, so nothing was tried");
            trial.saw(format!("then, {moving} partitions move: {}", wait_moving(&namespace).await?));

            set_rate(&namespace, "100Mi")?;
            let begin = Instant::now();
            namespace.wait(&format!("pod/main-{GOING}"), "delete", BROKERS)?;
            trial.within("the broker is gone after", begin.elapsed(), 2 * HEAL);
            let left = places(&ground).await?.iter().filter(|(replicas, _)| replicas.contains(&GOING)).count();
            trial.must(left == 0, format!("{left} partitions name the broker that is gone"));
            wait_ready(&namespace)?;
            trial.within("all replicas in sync after that", ground.heals(HEAL).await?, HEAL);
            check(ground.client(), "blobs", &blobs).await?;
            ground.finish(trial, CONTROLLER).await.map(drop)
        })
        .await
    })
}
