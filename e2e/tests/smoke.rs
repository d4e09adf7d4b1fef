//! The whole, as a user installs it: the chart, a Cluster, a Topic, and clients inside and outside of pods.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use taffrail_e2e::cli::cli;
use taffrail_e2e::kubernetes::lab::{self, Namespace, PATIENCE, until};

const IMAGES: &[&str] = &["taffrail-broker", "taffrail-operator", "taffrail", "python-client"];

/// How long three brokers may take to be there.
const BROKERS_PATIENCE: Duration = Duration::from_mins(3);

const OBJECTS: &str = "
apiVersion: taffrail.dev/v1alpha1
kind: Cluster
metadata: {name: main}
spec:
  replicas: 3
  storage: {size: 1Gi}
---
apiVersion: taffrail.dev/v1alpha1
kind: Topic
metadata: {name: people}
spec: {clusterRef: {name: main}, partitions: 3, replicationFactor: 1}
";

/// Reads a topic with nothing but the stubs of another language.
const READER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  restartPolicy: Never
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: reader
      image: ghcr.io/taffrail/python-client:0.1.0
      args: [/app/consume.py, \"main-bootstrap:9094\", people]
      securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
";

const INPUT: &str = "anna:1\nben:2\nanna:3\ncarla:4\nanna:5\n";

/// What there is in the topic, in the order of the keys.
fn read(endpoint: &str) -> Result<Vec<String>> {
    let read = cli(endpoint, "consume people --template {key}:{value}\\n", "")?.ok()?;
    Ok(sorted(&read))
}

fn sorted(lines: &str) -> Vec<String> {
    let mut lines: Vec<String> = lines.lines().map(ToOwned::to_owned).collect();
    // Stable: what has one key keeps its order.
    lines.sort_by_key(|line| line.split(':').next().unwrap_or_default().to_owned());
    lines
}

/// Waits for the Cluster and its topic.
fn wait_ready(namespace: &Namespace<'_>) -> Result<()> {
    namespace.wait("clusters.taffrail.dev/main", "condition=Ready", BROKERS_PATIENCE)?;
    namespace.wait_topic("people", 3)
}

#[test]
fn what_the_chart_installs_takes_records_and_gives_them_back_after_every_broker_was_killed() -> Result<()> {
    lab::test(IMAGES, async |lab| {
        lab.install_operator()?;
        let namespace = lab.namespace("smoke")?;
        namespace.apply(OBJECTS)?;
        wait_ready(&namespace)?;

        let endpoint = format!("http://main-bootstrap.{}.svc:9094", namespace.name());
        cli(&endpoint, "produce people --key-separator :", INPUT)?.ok().context("produce")?;
        assert_eq!(read(&endpoint)?, sorted(INPUT));

        namespace.apply(READER)?;
        namespace.wait("pod/reader", "jsonpath={.status.phase}=Succeeded", PATIENCE)?;
        let said = namespace.pod("reader").logs()?;
        ensure!(said.lines().count() == INPUT.lines().count(), "{said}");

        let brokers = namespace.pods("taffrail.dev/cluster=main")?;
        assert_eq!(brokers, ["main-0", "main-1", "main-2"]);
        for name in &brokers {
            namespace.pod(name).kill()?;
        }
        until("all brokers are started again", PATIENCE, async || {
            let restarts: Vec<u32> =
                brokers.iter().map(|name| namespace.pod(name).restarts()).collect::<Result<_>>()?;
            Ok(restarts.iter().all(|count| *count > 0).then_some(()))
        })
        .await?;
        wait_ready(&namespace)?;
        let again = until("the records are there", PATIENCE, async || Ok(Some(read(&endpoint)?))).await?;
        assert_eq!(again, sorted(INPUT));
        Ok(())
    })
}
