//! Which brokers are hit, and how: the pod of the leader of one partition, and then the node of the one that leads it next.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use taffrail_e2e::kubernetes::lab::{Fault, Lab};

use crate::kubectl::{kubectl, wait};
use crate::objects::{CLUSTER, NAMESPACE, TOPIC};
use crate::{PATIENCE, step};

/// What is hit.
#[derive(Debug)]
pub(crate) struct Victims {
    partition: usize,
    /// The node of the broker that leads the partition when its leader is gone: no pod of the application may be there.
    pub(crate) node: String,
}

impl Victims {
    /// The leader of this partition, and the node of its heir: the first of the other replicas, while all are in sync.
    pub(crate) fn choose(partition: usize) -> Result<Self> {
        let state = state(partition)?;
        let leader = state["leader"].as_i64().context("nobody leads")?;
        let replicas = state["replicas"].as_array().context("replicas")?;
        let heir = replicas.iter().filter_map(Value::as_i64).find(|broker| *broker != leader);
        Ok(Self { partition, node: node_of(heir.context("there is one replica only")?)? })
    }

    /// Kills the pod of the leader. Its object goes at once, as if nobody could say any more whether it runs.
    pub(crate) fn kill_leader(&self, handed_over: usize) -> Result<()> {
        let (index, leader) = (self.partition, leader(self.partition)?);
        let pod = format!("{CLUSTER}-{leader}");
        kubectl(&["delete", "pod", &pod, "-n", NAMESPACE, "--grace-period=0", "--force"])?;
        step(&format!(
            "killed the pod {pod}, which led partition {index}, after {handed_over} flights; all go on by themselves"
        ));
        Ok(())
    }

    /// Waits until all brokers serve and all replicas are in sync.
    pub(crate) fn wait_whole(&self) -> Result<()> {
        let begin = Instant::now();
        wait(&format!("clusters.taffrail.dev/{CLUSTER}"), "condition=Ready", PATIENCE)?;
        while !is_whole()? {
            ensure!(begin.elapsed() < PATIENCE, "not all replicas are in sync after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
        wait(&format!("topics.taffrail.dev/{TOPIC}"), "condition=UnderReplicated=False", PATIENCE)?;
        let taken = begin.elapsed().as_secs_f64();
        step(&format!(
            "all replicas are in sync again {taken:.1} s later; broker {} leads partition {}",
            leader(self.partition)?,
            self.partition
        ));
        Ok(())
    }

    /// Cuts the power of the leader's node. It comes back at the fault's end.
    pub(crate) fn cut_power<'a>(&self, lab: &'a Lab, handed_over: usize) -> Result<Fault<'a>> {
        let leader = leader(self.partition)?;
        let node = node_of(leader)?;
        ensure!(node == self.node, "broker {leader} leads on node {node}, where pods of the application are");
        let number = node.strip_prefix('n').and_then(|number| number.parse().ok()).context("the number of a node")?;
        let fault = lab.node(number).power_off()?;
        step(&format!("cut the power of node {node}, whose broker {leader} leads, after {handed_over} flights"));
        Ok(fault)
    }
}

fn slices() -> Result<Vec<Value>> {
    let found: Value = serde_json::from_str(&kubectl(&["get", "partitionslices", "-n", NAMESPACE, "-o", "json"])?)?;
    Ok(found["items"].as_array().cloned().unwrap_or_default())
}

/// A partition of the topic.
fn state(partition: usize) -> Result<Value> {
    let slices = slices()?;
    let slice = slices.iter().find(|slice| slice["spec"]["topicName"] == TOPIC).context("the topic has no slice")?;
    Ok(slice["spec"]["partitions"][partition].clone())
}

fn leader(partition: usize) -> Result<i64> {
    let begin = Instant::now();
    loop {
        if let Some(leader) = state(partition)?["leader"].as_i64() {
            return Ok(leader);
        }
        ensure!(begin.elapsed() < PATIENCE, "partition {partition} has no leader");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Whether all partitions, those of internal topics too, have all replicas in sync.
fn is_whole() -> Result<bool> {
    let count = |list: &Value| list.as_array().map_or(0, Vec::len);
    let whole = |partition: &Value| count(&partition["isr"]) == count(&partition["replicas"]);
    Ok(slices()?.iter().all(|slice| slice["spec"]["partitions"].as_array().is_some_and(|all| all.iter().all(whole))))
}

/// The node of a broker's pod.
fn node_of(broker: i64) -> Result<String> {
    kubectl(&["get", "pod", &format!("{CLUSTER}-{broker}"), "-n", NAMESPACE, "-o", "jsonpath={.spec.nodeName}"])
}
