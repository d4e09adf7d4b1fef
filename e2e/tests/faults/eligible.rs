//! All replicas go one after the other, and one comes back that was not the last: 1e.

use std::time::Instant;

use anyhow::Result;
use serde_json::json;
use taffrail_e2e::faults::all;
use taffrail_e2e::faults::ground::{Ground, IMAGES, Setting, told};
use taffrail_e2e::faults::trial::{Fault, Trial};
use taffrail_e2e::kubernetes::lab::{self, PATIENCE};
use tokio::time::sleep;

use super::{FAILOVER, HEAL, secs};

const TOPIC: &str = "topics.taffrail.dev/flights";

const ELIGIBLE: Fault = Fault {
    number: "1e",
    fault: "the only replica in sync is gone, and one comes back that had everything when acknowledgements ended",
    injected: "cgroup freezer of two brokers until the third is alone in sync, then of the third while the two go on",
    promised: "alone the third acknowledges nothing; without it an eligible replica leads, with proof: every partition acknowledges ≤ 30 s; \
               safe; in sync ≤ 60 s after the third wakes; the Topic says meanwhile that it does not survive the loss of a broker",
};

#[test]
fn f1_l3_an_eligible_replica_leads_while_the_last_in_sync_is_gone() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&ELIGIBLE, async |trial| {
            let mut ground = Ground::start(lab, "eligible", &Setting::default()).await?;
            let namespace = ground.namespace().clone();
            namespace.patch(TOPIC, &json!({"spec": {"survives": "Broker"}}))?;
            namespace.wait(TOPIC, "condition=SurvivesAsDeclared", PATIENCE)?;
            let (last, _) = ground.leader().await?;
            let first: Vec<_> =
                Ground::others(last).iter().map(|broker| ground.pod(*broker).freeze()).collect::<Result<_>>()?;
            let begin = Instant::now();
            // Sessions end, and so may the controller's Lease.
            sleep(secs(1)).await;
            let silent = Instant::now();
            ground
                .become_so("the last is alone in sync", secs(40), |state| {
                    state.isr.len() == 1 && state.isr[0].broker == last && !state.elr.is_empty()
                })
                .await?;
            trial.saw(format!(
                "alone in sync after {:.0} s: {}",
                begin.elapsed().as_secs_f64(),
                told(&ground.states().await?)
            ));
            namespace.wait(TOPIC, "condition=SurvivesAsDeclared=False", PATIENCE)?;
            let asleep = ground.pod(last).freeze()?;
            ground.must_be_silent(silent, Instant::now());
            drop(first);
            let gone = Instant::now();
            ground.goes_on(secs(120)).await?;
            trial.within("every partition acknowledges without it after", gone.elapsed(), secs(30));
            let states = ground.states().await?;
            let unproven = states.iter().filter(|state| state.recovering || state.leader == Some(last)).count();
            trial.must(unproven == 0, format!("not led with proof by others: {}", told(&states)));
            asleep.end()?;
            trial.within("all replicas in sync after it woke", ground.heals(HEAL).await?, HEAL);
            namespace.wait(TOPIC, "condition=SurvivesAsDeclared", PATIENCE)?;
            ground.goes_on(FAILOVER).await?;
            ground.finish(trial, secs(90)).await.map(drop)
        })
        .await
    })
}
