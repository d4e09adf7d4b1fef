//! A broker more and a broker less, under load: 28.

use std::time::Instant;

use anyhow::Result;
use taffrail_crds::slice::PartitionState;
use taffrail_e2e::faults::ground::{Ground, IMAGES, Setting, told};
use taffrail_e2e::faults::trial::{Fault, Trial};
use taffrail_e2e::kubernetes::lab::{self, until};

use crate::operate::{CLUSTER, wait_ready};
use crate::{BROKERS, FAILOVER, HEAL, SMOOTH, SMOOTH_RECORD};

/// The broker that comes and goes.
const NEW: i32 = 3;

/// Whether it is a replica that has everything.
fn is_settled(state: &PartitionState) -> bool {
    let in_sync = state.isr.iter().any(|replica| replica.broker == NEW);
    state.replicas.contains(&NEW) && in_sync && state.adding.is_empty() && state.removing.is_empty()
}

const SCALED: Fault = Fault {
    number: "28",
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
