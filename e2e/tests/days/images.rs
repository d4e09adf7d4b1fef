//! Images that are not there.

use anyhow::Result;
use serde_json::json;
use taffrail_e2e::faults::all;
use taffrail_e2e::faults::ground::{Ground, IMAGES, Setting};
use taffrail_e2e::faults::trial::{Fault, Trial};
use taffrail_e2e::kubernetes::lab::{self, Namespace, PATIENCE, until};

use crate::operate::{CLUSTER, cluster, pods, wait_ready};
use crate::{BROKERS, FAILOVER, HEAL, SMOOTH, SMOOTH_RECORD};

/// Waits until the Cluster names the image that is not there.
async fn wait_told(namespace: &Namespace<'_>, image: &str) -> Result<()> {
    until("the condition names the image", BROKERS, async || {
        let stalled = namespace.get(CLUSTER, ".status.conditions[?(@.type==\"Stalled\")]")?;
        Ok((stalled.contains("ImageCannotBePulled") && stalled.contains(image)).then_some(()))
    })
    .await
}

const MISSING: Fault = Fault {
    number: "20b",
    fault: "the brokers' image does not exist: from the start, and in an upgrade",
    injected: "spec.version of a version that there never was, then of one that there is",
    promised: "told by condition and Event; an upgrade takes one broker away and no more; heals once the version is right; safe; pauses ≤ 4 s, p99 < 1 s",
};

#[test]
fn f20_an_image_that_does_not_exist_is_told_and_takes_one_broker_away_at_the_most() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&MISSING, async |trial| {
            lab.install_operator()?;
            let namespace = lab.namespace("image")?;
            namespace.apply(&cluster(", version: 0.0.1-missing", ""))?;
            wait_told(&namespace, "ghcr.io/taffrail/taffrail-broker:0.0.1-missing").await?;
            let events = namespace.kubectl(&["get", "events", "-o", "jsonpath={.items[*].message}"])?.ok()?;
            trial
                .must(events.contains("the image ghcr.io/taffrail/taffrail-broker:0.0.1-missing"), "no Event names it");
            let version = |version: &str| namespace.patch(CLUSTER, &json!({ "spec": { "version": version } }));
            version(env!("CARGO_PKG_VERSION"))?;
            wait_ready(&namespace)?;

            let ground = Ground::on(namespace.clone(), &Setting::default()).await?;
            let before = pods(&namespace)?;
            version("0.0.2-missing")?;
            wait_told(&namespace, "ghcr.io/taffrail/taffrail-broker:0.0.2-missing").await?;
            ground.goes_on(FAILOVER).await?;
            let left = pods(&namespace)?;
            let kept = before.iter().filter(|pod| left.contains(pod)).count();
            trial.must(kept == 2, format!("{kept} of 3 brokers were left alone"));
            version(env!("CARGO_PKG_VERSION"))?;
            namespace.wait(CLUSTER, "condition=Stalled=False", PATIENCE)?;
            wait_ready(&namespace)?;
            trial.within("all replicas in sync after its start", ground.heals(HEAL).await?, HEAL);
            ground.finish_within(trial, SMOOTH, SMOOTH_RECORD).await.map(drop)
        })
        .await
    })
}
