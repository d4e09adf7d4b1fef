//! A broker more and a broker less, a replica less and a replica more, under load: 28.

use std::time::Instant;

use anyhow::Result;
use serde_json::json;
use taffrail_crds::slice::PartitionState;
use taffrail_e2e::faults::all;
use taffrail_e2e::faults::ground::{Ground, IMAGES, Setting, told};
use taffrail_e2e::faults::trial::{Fault, Trial};
use taffrail_e2e::kubernetes::lab::{self, until};

use crate::operate::{CLUSTER, TOPIC, wait_ready};
use crate::{BROKERS, FAILOVER, HEAL, SMOOTH, SMOOTH_RECORD};

/// The broker that comes and goes.
const NEW: i32 = 3;

/// Whether it is a replica that has everything.
fn is_settled(state: &PartitionState) -> bool {
    let in_sync = state.isr.iter().any(|replica| replica.broker == NEW);
    state.replicas.contains(&NEW) && in_sync && state.adding.is_empty() && state.removing.is_empty()
}

const SCALED: Fault = Fault {
    number: "28a",
    fault: "a broker is added, and taken away again",
    injected: "kubectl scale to 4 with rebalance: Enabled; once replicas are on the new broker, kubectl scale to 3",
    promised: "replicas move to the new broker ≤ 2 min, and away before its pod goes ≤ 2 min; safe; pauses ≤ 4 s, p99 of acks < 1 s",
};

#[test]
fn f28_i10_a_broker_is_added_and_taken_away_under_load() -> Result<()> {
    lab::test(IMAGES, async |lab| {
        Trial::run(&SCALED, async |trial| {
            let setting = Setting { spec: "  rebalance: Enabled\n".to_owned(), ..Setting::default() };
            let ground = Ground::start(lab, "scale", &setting).await?;
            let namespace = ground.namespace().clone();
            let begin = Instant::now();
            namespace.kubectl(&["scale", CLUSTER, "--replicas=4"])?.ok()?;
            let moved = until("replicas are on the new broker", BROKERS, async || {
                let states = ground.states().await?;
                let moved = states.iter().filter(|state| is_settled(state)).count();
                anyhow::ensure!(moved > 0, "{}", told(&states));
                Ok(Some(moved))
            })
            .await?;
            trial.within(&format!("{moved} replicas are on the new broker after"), begin.elapsed(), 2 * HEAL);
            wait_ready(&namespace)?;
            ground.goes_on(FAILOVER).await?;

            let begin = Instant::now();
            namespace.kubectl(&["scale", CLUSTER, "--replicas=3"])?.ok()?;
            let is_free = |state: &PartitionState| {
                [&state.replicas, &state.adding, &state.removing].iter().all(|list| !list.contains(&NEW))
            };
            ground.become_so("no partition is on the broker", BROKERS, is_free).await?;
            namespace.wait("pod/main-3", "delete", BROKERS)?;
            trial.within("the broker is gone after", begin.elapsed(), 2 * HEAL);
            wait_ready(&namespace)?;
            let draining = namespace.get(CLUSTER, ".status.drainingBrokers")?;
            trial.must(draining.is_empty() || draining == "[]", format!("draining brokers: {draining}"));
            trial.within("all replicas in sync after that", ground.heals(HEAL).await?, HEAL);
            ground.finish_within(trial, SMOOTH, SMOOTH_RECORD).await.map(drop)
        })
        .await
    })
}

const FACTOR: Fault = Fault {
    number: "28b",
    fault: "a topic's replication factor is lowered, and raised again",
    injected: "replicationFactor of the Topic: 2, and 3 again",
    promised: "each partition has two replicas ≤ 60 s, and three in sync ≤ 60 s; safe; pauses ≤ 4 s, p99 of acks < 1 s",
};

#[test]
fn f28_a_topic_gets_other_replicas_under_load() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&FACTOR, async |trial| {
            let ground = Ground::start(lab, "factor", &Setting::default()).await?;
            let namespace = ground.namespace().clone();
            let begin = Instant::now();
            namespace.patch(TOPIC, &json!({"spec": {"replicationFactor": 2}}))?;
            let are_two = |state: &PartitionState| {
                state.replicas.len() == 2
                    && state.isr.len() == 2
                    && state.adding.is_empty()
                    && state.removing.is_empty()
            };
            ground.become_so("two replicas", BROKERS, are_two).await?;
            trial.within("two replicas after", begin.elapsed(), HEAL);
            namespace.wait(TOPIC, "condition=Ready", BROKERS)?;
            ground.goes_on(FAILOVER).await?;

            let begin = Instant::now();
            namespace.patch(TOPIC, &json!({"spec": {"replicationFactor": 3}}))?;
            let are_three = |state: &PartitionState| {
                state.replicas.len() == 3
                    && state.isr.len() == 3
                    && state.adding.is_empty()
                    && state.removing.is_empty()
            };
            ground.become_so("three replicas", BROKERS, are_three).await?;
            trial.within("three replicas in sync after", begin.elapsed(), HEAL);
            namespace.wait(TOPIC, "condition=Ready", BROKERS)?;
            ground.goes_on(FAILOVER).await?;
            ground.finish_within(trial, SMOOTH, SMOOTH_RECORD).await.map(drop)
        })
        .await
    })
}
