//! Bad days of a cluster that a user has installed: nodes that are drained, and what admission cannot see.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use anyhow::{Result, ensure};
use taffrail_e2e::cli::cli;
use taffrail_e2e::kubernetes::lab::{self, Namespace, PATIENCE, until};

const IMAGES: &[&str] = &["taffrail-broker", "taffrail-operator"];

/// How long three brokers may take to be there.
const BROKERS_PATIENCE: Duration = Duration::from_mins(3);

fn cluster(more: &str) -> String {
    format!(
        "
apiVersion: taffrail.dev/v1alpha1
kind: Cluster
metadata: {{name: main}}
spec:
  replicas: 3
  storage: {{size: 1Gi{more}}}
"
    )
}

const TOPIC: &str = "
apiVersion: taffrail.dev/v1alpha1
kind: Topic
metadata: {name: people}
spec: {clusterRef: {name: main}, partitions: 3, replicationFactor: 3, config: {minInSyncReplicas: 2}}
";

fn wait_ready(namespace: &Namespace<'_>) -> Result<()> {
    namespace.wait("clusters.taffrail.dev/main", "condition=Ready", BROKERS_PATIENCE)
}

/// What there is in the topic, sorted.
fn read(endpoint: &str) -> Result<Vec<String>> {
    let read = cli(endpoint, "consume people", "")?.ok()?;
    let mut lines: Vec<String> = read.lines().map(ToOwned::to_owned).collect();
    lines.sort();
    Ok(lines)
}

#[test]
fn while_a_node_is_drained_records_are_taken_and_no_second_broker_may_be_evicted() -> Result<()> {
    lab::test_alone(IMAGES, async |lab| {
        lab.install_operator()?;
        let namespace = lab.namespace("drain")?;
        namespace.apply(&cluster(""))?;
        wait_ready(&namespace)?;
        namespace.apply(TOPIC)?;
        namespace.wait("topics.taffrail.dev/people", "condition=Ready", PATIENCE)?;
        let endpoint = format!("http://main-bootstrap.{}.svc:9094", namespace.name());
        cli(&endpoint, "produce people", "before\n")?.ok()?;

        let node = namespace.pod("main-1").node()?;
        let drained = lab.node(node).drain()?;
        cli(&endpoint, "produce people", "while it is away\n")?.ok()?;
        // The budget is used up by the broker that cannot run anywhere now.
        let eviction = format!(
            r#"{{"apiVersion":"policy/v1","kind":"Eviction","metadata":{{"name":"main-0","namespace":"{}"}}}}"#,
            namespace.name()
        );
        let path = format!("/api/v1/namespaces/{}/pods/main-0/eviction", namespace.name());
        let refused = lab.kubectl_with(&["create", "--raw", &path, "-f", "-"], &eviction)?.failed(1)?;
        ensure!(refused.contains("disruption budget"), "{refused}");
        drained.end()?;
        wait_ready(&namespace)?;
        cli(&endpoint, "produce people", "after\n")?.ok()?;
        assert_eq!(read(&endpoint)?, ["after", "before", "while it is away"]);
        Ok(())
    })
}

#[test]
fn a_storage_class_that_does_not_exist_is_told_by_condition_and_event_and_heals() -> Result<()> {
    lab::test(IMAGES, async |lab| {
        lab.install_operator()?;
        let namespace = lab.namespace("class")?;
        let class = format!("missing-{}", namespace.name());
        namespace.apply(&cluster(&format!(", storageClassName: {class}")))?;
        let told = async || {
            let conditions = namespace.get("clusters.taffrail.dev/main", ".status.conditions")?;
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

        let provisioner = lab.kubectl(&["get", "storageclass", "-o", "jsonpath={.items[0].provisioner}"])?.ok()?;
        namespace.apply(&format!(
            "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {{name: {class}}}\nprovisioner: {provisioner}\n\
             volumeBindingMode: WaitForFirstConsumer\n"
        ))?;
        let healed = wait_ready(&namespace);
        lab.kubectl(&["delete", "storageclass", &class])?.ok()?;
        healed
    })
}
