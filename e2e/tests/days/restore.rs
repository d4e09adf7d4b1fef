//! etcd is restored from a backup that is older than what the brokers have seen: 17.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use taffrail_crds::slice::PartitionState;
use taffrail_e2e::faults::ground::{Ground, IMAGES, PARTITIONS, Setting, told};
use taffrail_e2e::faults::trial::{Fault, Trial};
use taffrail_e2e::history::LOAD;
use taffrail_e2e::kubernetes::lab::{self, Namespace, PATIENCE, until};
use taffrail_e2e::writers::{Load, Writers, check};

use crate::operate::{TOPIC, recover, wait_ready};
use crate::{FAILOVER, HEAL};

/// What says why a partition is frozen.
const REASON: &str = "went back in time";

const RESTORED: Fault = Fault {
    number: "17",
    fault: "etcd is restored from a backup",
    injected: "a copy of etcd's files, put back after a leader was killed and numbers of producers were given out; API server, controllers \
               and scheduler are started again. Repaired as docs/operations.md says: frozen slices deleted, taffrail cluster \
               recover",
    promised: "partitions that changed since are frozen ≤ 60 s, and their slices and the Topic say why; nothing is truncated: safe once repaired, \
               also for producers whose numbers were given out since",
};

fn is_frozen(state: &PartitionState) -> bool {
    state.is_frozen() && state.leader.is_none() && state.fault.as_ref().is_some_and(|fault| fault.contains(REASON))
}

/// Deletes the slices that have frozen partitions, those of internal topics too: how many.
fn delete_frozen(namespace: &Namespace<'_>) -> Result<usize> {
    let slices = namespace.json("get partitionslices")?;
    let is_frozen = |slice: &&Value| {
        let mut partitions = slice["spec"]["partitions"].as_array().into_iter().flatten();
        partitions.any(|partition| partition["seenEpoch"].is_i64())
    };
    let frozen = slices["items"].as_array().into_iter().flatten().filter(is_frozen);
    let names: Vec<_> = frozen.filter_map(|slice| slice["metadata"]["name"].as_str()).collect();
    ensure!(!names.is_empty(), "no slice is frozen");
    namespace.kubectl(&[&["delete", "partitionslices"], &names[..]].concat())?.ok()?;
    Ok(names.len())
}

#[test]
fn f17_m5_etcd_is_restored_from_a_backup() -> Result<()> {
    lab::test_alone(IMAGES, async |lab| {
        Trial::run(&RESTORED, async |trial| {
            let ground = Ground::start(lab, "restore", &Setting::default()).await?;
            let namespace = ground.namespace().clone();
            ground.add_topic("orders", PARTITIONS, "")?;
            let load = Load::to("orders").padding(100).pause(Duration::from_millis(5)).patience(Duration::from_mins(3));
            let backup = lab.back_up()?;
            let before = until("the API server answers", PATIENCE, async || ground.states().await.map(Some)).await?;

            let (leader, _) = ground.leader().await?;
            let restarts = ground.pod(leader).restarts()?;
            ground.pod(leader).kill()?;
            ground.goes_on(FAILOVER).await?;
            let again = async || Ok((ground.pod(leader).restarts()? > restarts).then_some(()));
            until("it runs again", PATIENCE, again).await?;
            wait_ready(&namespace)?;
            ground.heals(HEAL).await?;
            let since = Writers::start(ground.client(), &load, 0)?;
            since.wait_for(200).await?;
            let changed = ground.states().await?;
            ensure!(changed != before, "nothing has changed: {}", told(&changed));

            backup.restore()?;
            let begin = Instant::now();
            let frozen = until("partitions are frozen for a reason", 2 * PATIENCE, async || {
                let states = ground.states().await?;
                let frozen = states.iter().filter(|state| is_frozen(state)).count();
                ensure!(frozen > 0, "{}", told(&states));
                Ok(Some(frozen))
            })
            .await?;
            trial.within(&format!("{frozen} partitions are frozen after"), begin.elapsed(), HEAL);
            let topic = async || Ok(namespace.get(TOPIC, ".status.conditions")?.contains(REASON).then_some(()));
            until("the Topic says why", PATIENCE, topic).await?;

            trial.saw(format!("{} slices deleted and brought back", delete_frozen(&namespace)?));
            recover(&ground)?;
            let begin = Instant::now();
            ground.goes_on(HEAL).await?;
            trial.within("every partition acknowledges after", begin.elapsed(), FAILOVER);
            wait_ready(&namespace)?;
            ground.heals(HEAL).await?;
            // Numbers that were given out since the backup are not given to others.
            let newest = Writers::start(ground.client(), &load, LOAD)?;
            newest.wait_for(200).await?;
            let mut history = since.stop().await?;
            history.extend(newest.stop().await?);
            check(ground.client(), "orders", &history).await?;
            ground.finish(trial, 2 * HEAL).await.map(drop)
        })
        .await
    })
}
