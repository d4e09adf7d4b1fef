//! What somebody who operates a Cluster does and looks at.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use taffrail_e2e::cli::cli;
use taffrail_e2e::faults::ground::Ground;
use taffrail_e2e::kubernetes::lab::{Namespace, PATIENCE, until};

use super::BROKERS;

/// The Cluster, as kubectl names it.
pub(crate) const CLUSTER: &str = "clusters.taffrail.dev/main";

/// The Topic.
pub(crate) const TOPIC: &str = "topics.taffrail.dev/flights";

/// A Cluster of three brokers, with more in its `spec` and in its `storage`.
pub(crate) fn cluster(spec: &str, storage: &str) -> String {
    format!(
        "apiVersion: taffrail.dev/v1alpha1\nkind: Cluster\nmetadata: {{name: main}}\n\
         spec: {{replicas: 3, storage: {{size: 1Gi{storage}}}{spec}}}\n"
    )
}

/// A Topic of it, with more in its `metadata` and in its `spec`.
pub(crate) fn topic(name: &str, metadata: &str, spec: &str) -> String {
    format!(
        "apiVersion: taffrail.dev/v1alpha1\nkind: Topic\nmetadata: {{name: {name}{metadata}}}\n\
         spec: {{clusterRef: {{name: main}}, partitions: 4, replicationFactor: 3{spec}}}\n"
    )
}

/// Where clients connect.
pub(crate) fn endpoint(namespace: &Namespace<'_>) -> String {
    format!("http://main-bootstrap.{}.svc:9094", namespace.name())
}

/// Waits until all brokers serve.
pub(crate) fn wait_ready(namespace: &Namespace<'_>) -> Result<()> {
    namespace.wait(CLUSTER, "condition=Ready", BROKERS)
}

/// What of the brokers' pods shows that they were left alone: who they are, and how often their containers were started again.
pub(crate) fn pods(namespace: &Namespace<'_>) -> Result<Vec<(String, u64)>> {
    let pods = namespace.json("get pods -l taffrail.dev/cluster=main")?;
    let of = |pod: &Value| {
        let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
        (pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned(), restarts.unwrap_or_default())
    };
    Ok(pods["items"].as_array().into_iter().flatten().map(of).collect())
}

/// Waits until another pod has taken the place of one, and serves.
pub(crate) async fn wait_replaced(namespace: &Namespace<'_>, pod: &str, uid: &str) -> Result<()> {
    let other = async || Ok(Some(namespace.pod(pod).get(".metadata.uid")?).filter(|present| present != uid));
    until("another pod is there", BROKERS, other).await?;
    namespace.wait(&format!("pod/{pod}"), "condition=Ready", BROKERS)
}

/// Makes a Topic and waits until it is served, which takes a controller: how long that took.
pub(crate) fn make_topic(namespace: &Namespace<'_>, name: &str) -> Result<Duration> {
    let begin = Instant::now();
    namespace.apply(&topic(name, "", ""))?;
    namespace.wait(&format!("topics.taffrail.dev/{name}"), "condition=Ready", PATIENCE)?;
    Ok(begin.elapsed())
}

/// Deletes a topic's slices.
pub(crate) fn delete_slices(namespace: &Namespace<'_>, topic: &str) -> Result<()> {
    let id = namespace.get(&format!("topics.taffrail.dev/{topic}"), ".status.topicId")?;
    let selector = format!("taffrail.dev/topic-id={id}");
    namespace.kubectl(&["delete", "partitionslices", "-l", &selector])?.ok().map(drop)
}

/// Brings back what is missing of the internal objects, as docs/operations.md says.
pub(crate) fn recover(ground: &Ground<'_>) -> Result<()> {
    let namespace = ground.namespace();
    let lost = cli(&endpoint(namespace), "cluster recover", "")?.ok()?;
    let arguments = ["-n", namespace.name(), "create", "-f", "-"];
    let created = namespace.lab().kubectl_with(&arguments, &lost)?;
    ensure!(created.out.contains(" created"), "nothing was missing: {created:?}");
    let left_alone = created.err.lines().all(|line| line.contains("AlreadyExists"));
    ensure!(left_alone, "{created:?}");
    Ok(())
}
