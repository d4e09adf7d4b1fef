//! Volumes: that are lost (23), of a class that does not exist, and that are to grow.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use taffrail_e2e::faults::ground::{Ground, IMAGES, Setting, told};
use taffrail_e2e::faults::trial::{Fault, Trial};
use taffrail_e2e::kubernetes::lab::{self, Lab, Namespace, PATIENCE, until};

use crate::operate::{CLUSTER, cluster, pods, wait_ready};
use crate::{FAILOVER, HEAL};

/// How long nobody may lead while those who can are away.
const LEADERLESS: Duration = Duration::from_secs(5);

const LOST: Fault = Fault {
    number: "23",
    fault: "a volume is lost, and the other brokers sleep while its broker comes back without it",
    injected: "the pod and its claim deleted, the other two in the cgroup freezer until the third is controller, and 5 s longer",
    promised: "it leads nothing; every partition acknowledges ≤ 10 s after the others are awake, nobody without proof; it is in sync ≤ 60 s \
               later and may lead then; safe",
};

/// The broker with the empty volume is the only one that runs, and so it is the controller: it must not elect itself.
#[test]
fn f23_l6_a_volume_is_lost_and_its_broker_leads_nothing_before_it_has_caught_up() -> Result<()> {
    lab::test(IMAGES, async |lab| {
        Trial::run(&LOST, async |trial| {
            let ground = Ground::start(lab, "volume", &Setting::default()).await?;
            let namespace = ground.namespace().clone();
            let (lost, volume) = (ground.pod(2), || namespace.get("pvc/data-main-2", ".spec.volumeName"));
            let (uid, before) = (lost.get(".metadata.uid")?, volume()?);
            // As docs/operations.md says, but the broker has no time to hand over: so it is where a disk is lost.
            namespace.kubectl(&["delete", "pvc", "data-main-2", "--wait=false"])?.ok()?;
            namespace.kubectl(&["delete", "pod", "main-2", "--grace-period=1", "--wait=false"])?.ok()?;
            let others = [ground.pod(0).freeze()?, ground.pod(1).freeze()?];
            until("the broker with the empty volume is the controller", PATIENCE, async || {
                let replaced = lost.get(".metadata.uid")? != uid && volume()? != before;
                Ok((replaced && ground.controller().await? == 2).then_some(()))
            })
            .await?;
            ground.become_so("nobody leads", PATIENCE, |state| state.leader.is_none()).await?;
            let begin = Instant::now();
            while begin.elapsed() < LEADERLESS {
                let states = ground.states().await?;
                ensure!(states.iter().all(|state| state.leader.is_none()), "{}", told(&states));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let awake = Instant::now();
            for other in others {
                other.end()?;
            }
            ground.goes_on(PATIENCE).await?;
            trial.within("every partition acknowledges after", awake.elapsed(), FAILOVER);
            let unproven = ground.states().await?.iter().filter(|state| state.recovering).count();
            trial.must(unproven == 0, format!("{unproven} partitions are led without proof"));
            trial.within("all replicas in sync after", ground.heals(HEAL).await?, HEAL);
            wait_ready(&namespace)?;

            // It has everything, so it may lead what the others hand over.
            namespace.kubectl(&["delete", "pod", "main-0", "main-1", "--wait=false"])?.ok()?;
            let leads = async || Ok(ground.leaders().await?.contains(&Some(2)).then_some(()));
            until("the rebuilt replica leads", PATIENCE, leads).await?;
            ground.goes_on(PATIENCE).await?;
            ground.heals(HEAL).await?;
            ground.finish(trial, HEAL).await.map(drop)
        })
        .await
    })
}

/// Makes a storage class of the default one's provisioner, with more fields.
fn make_class(lab: &Lab, name: &str, more: &str) -> Result<()> {
    let provisioner = lab.kubectl(&["get", "storageclass", "-o", "jsonpath={.items[0].provisioner}"])?.ok()?;
    let class = format!(
        "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {{name: {name}}}\nprovisioner: {provisioner}\n\
         volumeBindingMode: WaitForFirstConsumer\n{more}"
    );
    lab.kubectl_with(&["apply", "--server-side", "-f", "-"], &class)?.ok().map(drop)
}

#[test]
fn a_storage_class_that_does_not_exist_is_told_by_condition_and_event_and_heals() -> Result<()> {
    lab::test(IMAGES, async |lab| {
        lab.install_operator()?;
        let namespace = lab.namespace("class")?;
        let class = format!("missing-{}", namespace.name());
        namespace.apply(&cluster("", &format!(", storageClassName: {class}")))?;
        let told = async || {
            let conditions = namespace.get(CLUSTER, ".status.conditions")?;
            let events = namespace.kubectl(&["get", "events", "-o", "jsonpath={.items[*].message}"])?.ok()?;
            Ok((conditions.contains(&class) && events.contains(&class)).then_some(()))
        };
        until("the condition and the Event name the class", PATIENCE, told).await?;
        let restarts = lab
            .kubectl(&[
                "get",
                "pods",
                "-A",
                "-l",
                "app.kubernetes.io/component=operator",
                "-o",
                "jsonpath={.items[*].status.containerStatuses[*].restartCount}",
            ])?
            .ok()?;
        ensure!(restarts.split_whitespace().all(|count| count == "0"), "the operator has ended: {restarts}");

        make_class(lab, &class, "")?;
        let healed = wait_ready(&namespace);
        lab.kubectl(&["delete", "storageclass", &class])?.ok()?;
        healed
    })
}

/// The provisioner of the lab does not grow volumes: whoever would, its part is played here.
#[test]
fn volumes_are_asked_to_grow_and_the_cluster_says_that_it_waits_for_them() -> Result<()> {
    lab::test(IMAGES, async |lab| {
        lab.install_operator()?;
        let namespace = lab.namespace("grow")?;
        let class = format!("grows-{}", namespace.name());
        make_class(lab, &class, "allowVolumeExpansion: true\n")?;
        let grown = grow(&namespace, &class).await;
        lab.kubectl(&["delete", "storageclass", &class])?.ok()?;
        grown
    })
}

async fn grow(namespace: &Namespace<'_>, class: &str) -> Result<()> {
    namespace.apply(&cluster("", &format!(", storageClassName: {class}")))?;
    wait_ready(namespace)?;
    let before = pods(namespace)?;
    namespace.patch(CLUSTER, &json!({ "spec": { "storage": { "size": "2Gi" } } }))?;
    until("claims and template ask for more", PATIENCE, async || {
        let claims = namespace.get("pvc", ".items[*].spec.resources.requests.storage")?;
        let template =
            namespace.get("statefulset/main", ".spec.volumeClaimTemplates[0].spec.resources.requests.storage")?;
        Ok((claims == "2Gi 2Gi 2Gi" && template == "2Gi").then_some(()))
    })
    .await?;
    let condition = |type_: &str| namespace.get(CLUSTER, &format!(".status.conditions[?(@.type==\"{type_}\")]"));
    let told = async || Ok(condition("Reconciling")?.contains("VolumesGrow").then_some(()));
    let waits = until("the Cluster says that they have not grown", PATIENCE, told).await;
    waits.with_context(|| format!("{:?} {:?}", condition("Reconciling"), condition("Stalled")))?;
    wait_ready(namespace)?;
    assert_eq!(pods(namespace)?, before, "pods go on");

    for claim in ["data-main-0", "data-main-1", "data-main-2"] {
        let grown = json!({ "status": { "capacity": { "storage": "2Gi" } } }).to_string();
        let patch = ["patch", "pvc", claim, "--subresource=status", "--type=merge", "--patch", &grown];
        namespace.kubectl(&patch)?.ok()?;
    }
    namespace.wait(CLUSTER, "condition=Reconciling=False", PATIENCE)?;
    assert_eq!(pods(namespace)?, before, "pods go on");
    Ok(())
}
