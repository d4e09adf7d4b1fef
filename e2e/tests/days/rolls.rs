//! Brokers are restarted one by one for another version, and back, under load: 20.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use taffrail_e2e::faults::ground::{Ground, IMAGES, Setting};
use taffrail_e2e::faults::trial::{Fault, Trial};
use taffrail_e2e::faults::{all, allowed};
use taffrail_e2e::kubernetes::lab::{self, Lab, Namespace, until};

use crate::operate::CLUSTER;
use crate::{BROKERS, HEAL, SMOOTH, SMOOTH_RECORD};

const IMAGE: &str = "ghcr.io/taffrail/taffrail-broker";

/// The version that is built, and a name of the same programs as those of another.
const VERSIONS: [&str; 2] = [env!("CARGO_PKG_VERSION"), "0.0.9-before"];

/// Waits until all brokers run this version and the Cluster says that they serve.
async fn wait_rolled(namespace: &Namespace<'_>, version: &str) -> Result<()> {
    let image = format!("{IMAGE}:{version}");
    until("all brokers run it and serve", allowed(BROKERS), async || {
        let (pods, cluster) =
            (namespace.json("get pods -l taffrail.dev/cluster=main")?, namespace.json(&format!("get {CLUSTER}"))?);
        let pods: Vec<&Value> = pods["items"].as_array().into_iter().flatten().collect();
        let run = pods.iter().all(|pod| pod["spec"]["containers"][0]["image"] == image.as_str());
        let newest = |condition: &&Value| condition["observedGeneration"] == cluster["metadata"]["generation"];
        let conditions = cluster["status"]["conditions"].as_array().into_iter().flatten().filter(newest);
        let serve =
            conditions.filter(|condition| condition["type"] == "Ready" && condition["status"] == "True").count();
        Ok((pods.len() == 3 && run && serve == 1).then_some(()))
    })
    .await
    .with_context(|| format!("roll to {version}"))
}

async fn roll(lab: &Lab, fault: &Fault, times: usize) -> Result<()> {
    Trial::run(fault, async |trial| {
        for node in 1..=3 {
            lab.node(node).tag_image(&format!("{IMAGE}:{}", VERSIONS[0]), &format!("{IMAGE}:{}", VERSIONS[1]))?;
        }
        let ground = Ground::start(lab, "rolls", &Setting::default()).await?;
        let mut longest = Duration::ZERO;
        for n in 1..=times {
            let (begin, version) = (Instant::now(), VERSIONS[n % 2]);
            ground.namespace().patch(CLUSTER, &json!({ "spec": { "version": version } }))?;
            wait_rolled(ground.namespace(), version).await?;
            ground.heals(HEAL).await?;
            longest = longest.max(begin.elapsed());
            println!("roll {n} of {times} took {:.0?}", begin.elapsed());
        }
        trial.within(&format!("longest of {times} rolls of three brokers"), longest, BROKERS);
        ground.finish_within(trial, SMOOTH, SMOOTH_RECORD).await.map(drop)
    })
    .await
}

const TWO: Fault = Fault {
    number: "20a",
    fault: "all brokers are restarted for another version, and for the one before",
    injected: "spec.version, 2 times; both versions are the same programs under two names",
    promised: "one broker at a time, each when all replicas are in sync; safe; no failed ack; pauses ≤ 4 s, p99 of acks < 1 s; ≤ 3 min a roll",
};

#[test]
fn f20_i9_brokers_are_rolled_to_another_version_and_back() -> Result<()> {
    if all() {
        // The other test does it more often.
        return Ok(());
    }
    lab::test_alone(IMAGES, async |lab| roll(lab, &TWO, 2).await)
}

const TWENTY: Fault =
    Fault { injected: "spec.version, 20 times; both versions are the same programs under two names", ..TWO };

#[test]
fn f20_i9_brokers_are_rolled_twenty_times() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test_alone(IMAGES, async |lab| roll(lab, &TWENTY, 20).await)
}
