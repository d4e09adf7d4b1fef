//! What people do to objects that are not theirs: the Lease (18), slices, Topics and whole kinds (19).

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use taffrail_e2e::cli::project;
use taffrail_e2e::faults::all;
use taffrail_e2e::faults::ground::{Ground, IMAGES, PARTITIONS, Setting};
use taffrail_e2e::faults::trial::{Fault, Trial};
use taffrail_e2e::history::LOAD;
use taffrail_e2e::kubernetes::lab::{self, Lab, Namespace, PATIENCE, until};
use taffrail_e2e::writers::{Load, Writers, check};

use crate::operate::{TOPIC, delete_slices, make_topic, pods, recover, topic};
use crate::{FAILOVER, HEAL, SMOOTH, SMOOTH_RECORD};

const LEASE: &str = "lease/main-controller";

const SPOILT: Fault = Fault {
    number: "18",
    fault: "the controller's Lease is deleted, stolen, edited",
    injected: "kubectl delete, then kubectl patch of the holder, then of holder, time and duration",
    promised: "safe; no broker ends, no leader changes, pauses ≤ 4 s; a topic can be made ≤ 30 s after each",
};

#[test]
fn f18_m14_a_lease_is_deleted_stolen_or_spoilt() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&SPOILT, async |trial| {
            let ground = Ground::start(lab, "lease", &Setting::default()).await?;
            let namespace = ground.namespace().clone();
            let (elections, restarts) = (ground.elections().await?, pods(&namespace)?);
            let spoil = |spec: Value| namespace.patch(LEASE, &json!({ "spec": spec }));
            let cases: [(&str, &dyn Fn() -> Result<()>); 3] = [
                ("deleted", &|| namespace.kubectl(&["delete", LEASE])?.ok().map(drop)),
                ("stolen", &|| spoil(json!({ "holderIdentity": "somebody/else" }))),
                ("edited", &|| spoil(json!({ "renewTime": null, "leaseDurationSeconds": 1, "holderIdentity": "" }))),
            ];
            for (what, act) in cases {
                act()?;
                let taken = make_topic(&namespace, what)?;
                trial.within(&format!("{what}: a topic is made after"), taken, Duration::from_secs(30));
                let back = async || {
                    let holder = namespace.get(LEASE, ".spec.holderIdentity")?;
                    Ok(holder.starts_with("main-").then_some(()))
                };
                until("a broker holds the Lease", PATIENCE, back).await?;
                ground.goes_on(FAILOVER).await?;
            }
            let changed = ground.elections().await? - elections;
            trial.must(changed == 0, format!("{changed} elections"));
            trial.must(pods(&namespace)? == restarts, "a broker has ended");
            ground.finish_within(trial, SMOOTH, SMOOTH_RECORD).await.map(drop)
        })
        .await
    })
}

/// Waits until the Topic says why nobody can write it.
async fn wait_frozen(namespace: &Namespace<'_>) -> Result<()> {
    let reason = ".status.conditions[?(@.type==\"Ready\")].reason";
    let told = async || Ok((namespace.get(TOPIC, reason)? == "SlicesLost").then_some(()));
    until("the Topic says that its slices are lost", PATIENCE, told).await
}

const SLICES: Fault = Fault {
    number: "19a",
    fault: "the slices of a topic are deleted; a Topic is deleted",
    injected: "kubectl delete of the slices, taffrail cluster recover; kubectl delete of a Topic, a Topic that adopts",
    promised: "the Topic says SlicesLost; all goes on ≤ 10 s after recover; the Topic that adopts has every record; safe",
};

#[test]
fn f19_m9_slices_and_a_topic_are_deleted() -> Result<()> {
    lab::test(IMAGES, async |lab| {
        Trial::run(&SLICES, async |trial| {
            let ground = Ground::start(lab, "objects", &Setting::default()).await?;
            let namespace = ground.namespace().clone();
            delete_slices(&namespace, "flights")?;
            wait_frozen(&namespace).await?;
            recover(&ground)?;
            let begin = Instant::now();
            ground.goes_on(HEAL).await?;
            trial.within("every partition acknowledges after", begin.elapsed(), FAILOVER);
            namespace.wait(TOPIC, "condition=Ready", PATIENCE)?;
            ground.heals(HEAL).await?;
            is_adopted(&ground).await?;
            ground.finish(trial, HEAL).await.map(drop)
        })
        .await
    })
}

/// A Topic that is made in the place of one that was deleted, and names the topic by its id, has all its records.
async fn is_adopted(ground: &Ground<'_>) -> Result<()> {
    let (namespace, object) = (ground.namespace(), "topics.taffrail.dev/orders");
    ground.add_topic("orders", PARTITIONS, "")?;
    let id = namespace.get(object, ".status.topicId")?;
    let load = Load::to("orders").padding(100).pause(Duration::from_millis(2));
    let writers = Writers::start(ground.client(), &load, 0)?;
    writers.wait_for(500).await?;
    let mut history = writers.stop().await?;
    namespace.kubectl(&["delete", object])?.ok()?;
    namespace.apply(&topic("orders", &format!(", annotations: {{taffrail.dev/adopt: {id}}}"), ""))?;
    namespace.wait(object, "condition=Ready", PATIENCE)?;
    let present = namespace.get(object, ".status.topicId")?;
    ensure!(present == id, "the Topic has {present}, not {id}");
    let writers = Writers::start(ground.client(), &load, LOAD)?;
    writers.wait_for(500).await?;
    history.extend(writers.stop().await?);
    check(ground.client(), "orders", &history).await.map(drop)
}

/// Removes the definition of a kind, with which Kubernetes deletes all objects of it; a while later it is there again.
pub(crate) async fn remove_kind(lab: &Lab, kind: &str) -> Result<()> {
    let kind = format!("crd/{kind}.taffrail.dev");
    let deleted = lab.kubectl(&["delete", &kind, "--timeout=60s"])?.ok();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let definitions = project().join("crds/yaml");
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", &definitions.to_string_lossy()];
    lab.kubectl(&apply)?.ok()?;
    lab.kubectl(&["wait", "--for=condition=Established", &kind, "--timeout=60s"])?.ok()?;
    deleted.map(drop)
}

const KIND: Fault = Fault {
    number: "19b",
    fault: "the definition of a kind is removed by hand",
    injected: "kubectl delete crd partitionslices.taffrail.dev, with which Kubernetes deletes all slices; kubectl apply -f crds/yaml, recover",
    promised: "no broker ends; the Topic says SlicesLost; all goes on ≤ 60 s after recover (watches of a kind that is not there are begun \
               again after up to 30 s); a topic can be made; safe",
};

#[test]
fn f19_m9_a_kind_is_removed_by_hand() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test_alone(IMAGES, async |lab| {
        Trial::run(&KIND, async |trial| {
            let ground = Ground::start(lab, "kind", &Setting::default()).await?;
            let namespace = ground.namespace().clone();
            let restarts = pods(&namespace)?;
            remove_kind(lab, "partitionslices").await?;
            wait_frozen(&namespace).await?;
            recover(&ground)?;
            let begin = Instant::now();
            ground.goes_on(2 * HEAL).await?;
            trial.within("every partition acknowledges after", begin.elapsed(), HEAL);
            make_topic(&namespace, "later")?;
            trial.must(pods(&namespace)? == restarts, "a broker has ended");
            ground.finish(trial, 2 * HEAL).await.map(drop)
        })
        .await
    })
}
