//! Objects that brokers and the operator stand on are gone under load: the ClusterState, all Topics, the Cluster: 19.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use taffrail_client::Client;
use taffrail_e2e::faults::all;
use taffrail_e2e::faults::ground::{BROKERS as COUNT, Ground, IMAGES, Setting};
use taffrail_e2e::faults::trial::{Fault, Trial};
use taffrail_e2e::history::LOAD;
use taffrail_e2e::kubernetes::lab::{self, Namespace, PATIENCE, until};
use taffrail_e2e::writers::{Load, Writers, check};

use crate::objects::remove_kind;
use crate::operate::{CLUSTER, cluster, endpoint, make_topic, pods, recover, topic, wait_ready};
use crate::{BROKERS, FAILOVER, HEAL, SMOOTH, SMOOTH_RECORD};

/// The ClusterState, as kubectl names it.
const STATE: &str = "clusterstates.taffrail.dev/main";

/// A Topic that goes.
const ORDERS: &str = "topics.taffrail.dev/orders";

/// How long the ClusterState is away: longer than a Lease and a session.
const AWAY: Duration = Duration::from_secs(10);

fn is_there(namespace: &Namespace<'_>, object: &str) -> Result<bool> {
    Ok(namespace.kubectl(&["get", object])?.code == Some(0))
}

/// The topics' slices, by the identity of their objects.
fn slices(namespace: &Namespace<'_>) -> Result<String> {
    namespace.get("partitionslices.taffrail.dev", ".items[*].metadata.uid")
}

const KIND_OF_TOPICS: Fault = Fault {
    number: "19c",
    fault: "the definition of Topic is removed by hand",
    injected: "kubectl delete crd topics.taffrail.dev, with which Kubernetes deletes all Topics, 500 records after the beginning; kubectl apply -f \
               crds/yaml; a Topic that adopts",
    promised: "no broker ends and no slice goes; the Topic that adopts is served by all brokers ≤ 60 s after it was made, with every record; \
               a topic can be made; safe",
};

/// A topic without a Topic is not served: so nobody writes while it is gone.
#[test]
fn f19_m9_the_kind_of_topics_is_removed_by_hand() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test_alone(IMAGES, async |lab| {
        Trial::run(&KIND_OF_TOPICS, async |trial| {
            lab.install_operator()?;
            let namespace = lab.namespace("topics")?;
            namespace.apply(&cluster("", ""))?;
            wait_ready(&namespace)?;
            make_topic(&namespace, "orders")?;
            namespace.wait_topic("orders", COUNT)?;
            let id = namespace.get(ORDERS, ".status.topicId")?;
            let client = Client::connect(endpoint(&namespace))?;
            let load = Load::to("orders").padding(100).pause(Duration::from_millis(2));
            let writers = Writers::start(&client, &load, 0)?;
            writers.wait_for(500).await?;
            let mut history = writers.stop().await?;

            let before = (pods(&namespace)?, slices(&namespace)?);
            remove_kind(lab, "topics").await?;
            ensure!(!is_there(&namespace, ORDERS)?, "the Topic is still there, so nothing was tried");
            namespace.apply(&topic("orders", &format!(", annotations: {{taffrail.dev/adopt: {id}}}"), ""))?;
            let begin = Instant::now();
            namespace.wait_topic("orders", COUNT)?;
            trial.within("all brokers serve it again after", begin.elapsed(), HEAL);
            let present = namespace.get(ORDERS, ".status.topicId")?;
            trial.must(present == id, format!("the Topic has {present}, not {id}"));
            let after = (pods(&namespace)?, slices(&namespace)?);
            trial.must(after == before, format!("{before:?} are now {after:?}"));

            let writers = Writers::start(&client, &load, LOAD)?;
            writers.wait_for(500).await?;
            history.extend(writers.stop().await?);
            check(&client, "orders", &history).await?;
            trial.saw(format!("{} records acknowledged before and after; safe", history.acked()));
            make_topic(&namespace, "later").map(drop)
        })
        .await
    })
}

/// What stays as it was without a ClusterState: the brokers' pods with their restarts, elections, and the cluster's identity.
type Untouched = (Vec<(String, u64)>, i32, String);

async fn untouched(ground: &Ground<'_>) -> Result<Untouched> {
    let namespace = ground.namespace();
    Ok((pods(namespace)?, ground.elections().await?, namespace.get(STATE, ".spec.clusterId")?))
}

/// The ClusterState is gone: everything goes on, nobody makes another, and it comes back as docs/operations.md says.
async fn without_state(ground: Ground<'_>, trial: &mut Trial, before: Untouched) -> Result<()> {
    let namespace = ground.namespace().clone();
    tokio::time::sleep(AWAY).await;
    ensure!(!is_there(&namespace, STATE)?, "somebody has made a ClusterState in the place of the one that is gone");
    ground.goes_on(FAILOVER).await?;
    recover(&ground)?;
    trial.within("a topic is made after", make_topic(&namespace, "later")?, HEAL);
    let after = untouched(&ground).await?;
    trial.must(after == before, format!("{before:?} are now {after:?}"));
    ground.finish_within(trial, SMOOTH, SMOOTH_RECORD).await.map(drop)
}

const STATE_OBJECT: Fault = Fault {
    number: "19d",
    fault: "the ClusterState is deleted by hand",
    injected: "kubectl delete clusterstates.taffrail.dev main; after 10 s taffrail cluster recover",
    promised: "everything that is there goes on: safe, pauses ≤ 4 s, p99 of acks < 1 s, no broker ends, no leader changes; nobody makes another; \
               brought back, the cluster has its identity, and a topic can be made ≤ 60 s later",
};

#[test]
fn f19_m9_the_cluster_state_is_deleted_by_hand() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&STATE_OBJECT, async |trial| {
            let ground = Ground::start(lab, "state", &Setting::default()).await?;
            let before = untouched(&ground).await?;
            ground.namespace().kubectl(&["delete", STATE, "--timeout=60s"])?.ok()?;
            without_state(ground, trial, before).await
        })
        .await
    })
}

const STATE_KIND: Fault = Fault {
    number: "19e",
    fault: "the definition of ClusterState is removed by hand",
    injected: "kubectl delete crd clusterstates.taffrail.dev; kubectl apply -f crds/yaml; after 10 s taffrail cluster recover",
    promised: "as 19d",
};

#[test]
fn f19_m9_the_kind_of_cluster_states_is_removed_by_hand() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test_alone(IMAGES, async |lab| {
        Trial::run(&STATE_KIND, async |trial| {
            let ground = Ground::start(lab, "states", &Setting::default()).await?;
            let before = untouched(&ground).await?;
            remove_kind(lab, "clusterstates").await?;
            without_state(ground, trial, before).await
        })
        .await
    })
}

const CLUSTER_OBJECT: Fault = Fault {
    number: "19f",
    fault: "the Cluster is deleted by hand, and made again",
    injected: "kubectl delete clusters.taffrail.dev main, with which its pods go; kubectl apply of the same",
    promised: "volumes, slices, Topics and the cluster's identity stay; every partition acknowledges ≤ 2 min after it was made again; safe",
};

#[test]
fn f19_a_cluster_is_deleted_and_made_again_with_its_data() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&CLUSTER_OBJECT, async |trial| {
            let ground = Ground::start(lab, "deleted", &Setting::default()).await?;
            let namespace = ground.namespace().clone();
            let kept = || -> Result<[String; 4]> {
                Ok([
                    namespace.get("persistentvolumeclaims", ".items[*].metadata.uid")?,
                    slices(&namespace)?,
                    namespace.get("topics.taffrail.dev", ".items[*].status.topicId")?,
                    namespace.get(STATE, ".spec.clusterId")?,
                ])
            };
            let before = kept()?;
            namespace.kubectl(&["delete", CLUSTER, "--timeout=60s"])?.ok()?;
            until("its pods are gone", BROKERS, async || Ok(pods(&namespace)?.is_empty().then_some(()))).await?;
            trial.must(kept()? == before, format!("{before:?} are now {:?}", kept()?));

            namespace.apply(&cluster("", ""))?;
            let begin = Instant::now();
            ground.goes_on(2 * PATIENCE).await?;
            trial.within("every partition acknowledges after", begin.elapsed(), 2 * HEAL);
            wait_ready(&namespace)?;
            ground.heals(HEAL).await?;
            trial.must(kept()? == before, format!("{before:?} are now {:?}", kept()?));
            ground.finish(trial, 3 * HEAL).await.map(drop)
        })
        .await
    })
}
