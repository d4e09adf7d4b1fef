//! Brokers that have to leave their nodes: 21.

use anyhow::{Result, ensure};
use taffrail_e2e::cli::Ended;
use taffrail_e2e::faults::all;
use taffrail_e2e::faults::ground::{Ground, IMAGES, Setting};
use taffrail_e2e::faults::trial::{Fault, Trial};
use taffrail_e2e::kubernetes::lab::{self, Namespace, PATIENCE, until};

use crate::operate::{wait_ready, wait_replaced};
use crate::{FAILOVER, HEAL, SMOOTH, SMOOTH_RECORD};

fn evict(namespace: &Namespace<'_>, pod: &str) -> Result<Ended> {
    let eviction = format!(
        r#"{{"apiVersion":"policy/v1","kind":"Eviction","metadata":{{"name":"{pod}","namespace":"{}"}}}}"#,
        namespace.name()
    );
    let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", namespace.name());
    namespace.lab().kubectl_with(&["create", "--raw", &path, "-f", "-"], &eviction)
}

/// The budget is used up by a broker that is away.
fn is_refused(namespace: &Namespace<'_>, pod: &str) -> Result<()> {
    let refused = evict(namespace, pod)?.failed(1)?;
    ensure!(refused.contains("disruption budget"), "{refused}");
    Ok(())
}

const EVICTED: Fault = Fault {
    number: "21a",
    fault: "a broker's pod is evicted",
    injected: "Kubernetes' Eviction of one pod, and of a second while the first is away",
    promised: "the second is refused; the first hands over and comes back with its volume; safe; pauses ≤ 4 s, p99 of acks < 1 s; in sync ≤ 60 s",
};

#[test]
fn f21_i9_a_broker_is_evicted_and_no_second() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&EVICTED, async |trial| {
            let ground = Ground::start(lab, "evict", &Setting::default()).await?;
            let namespace = ground.namespace().clone();
            let volume = || namespace.get("pvc/data-main-1", ".spec.volumeName");
            let (before, uid) = (volume()?, namespace.pod("main-1").get(".metadata.uid")?);
            // The budget opens a moment after all replicas are in sync.
            until("one broker may go", PATIENCE, async || evict(&namespace, "main-1")?.ok().map(Some)).await?;
            is_refused(&namespace, "main-2")?;
            ground.goes_on(FAILOVER).await?;
            wait_replaced(&namespace, "main-1", &uid).await?;
            trial.must(volume()? == before, "it came back with another volume");
            trial.within("all replicas in sync after its start", ground.heals(HEAL).await?, HEAL);
            ground.finish_within(trial, SMOOTH, SMOOTH_RECORD).await.map(drop)
        })
        .await
    })
}

const DRAINED: Fault = Fault {
    number: "21b",
    fault: "a node is drained, and takes pods again later",
    injected: "kubectl drain, an Eviction of another broker meanwhile, kubectl uncordon",
    promised: "as 21a",
};

#[test]
fn f21_i9_a_node_is_drained() -> Result<()> {
    lab::test_alone(IMAGES, async |lab| {
        Trial::run(&DRAINED, async |trial| {
            let ground = Ground::start(lab, "drain", &Setting::default()).await?;
            let namespace = ground.namespace().clone();
            let drained = lab.node(namespace.pod("main-1").node()?).drain()?;
            ground.goes_on(FAILOVER).await?;
            is_refused(&namespace, "main-0")?;
            drained.end()?;
            wait_ready(&namespace)?;
            trial.within("all replicas in sync after its start", ground.heals(HEAL).await?, HEAL);
            ground.finish_within(trial, SMOOTH, SMOOTH_RECORD).await.map(drop)
        })
        .await
    })
}
