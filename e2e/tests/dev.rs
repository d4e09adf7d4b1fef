//! A cluster of brokers in one process: `taffrail-broker dev`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use taffrail_client::{Client, NewTopic};
use taffrail_e2e::cli::{self, cli};
use taffrail_e2e::process::{Broker, BrokerOptions, http_get, program};
use taffrail_e2e::writers::{Load, Writers, check};

const BROKERS: u16 = 3;
const USAGE: i32 = 2;
/// Time for a broker to be noticed as dead, or to be back.
const PATIENCE: Duration = Duration::from_mins(1);

/// The same server of another broker.
fn of_broker(first: SocketAddr, broker: u16) -> SocketAddr {
    SocketAddr::new(first.ip(), first.port() + 10 * broker)
}

fn is_ready(options: &BrokerOptions, broker: u16) -> bool {
    http_get(of_broker(options.admin, broker), "/readyz").is_ok_and(|(status, _)| status == 200)
}

async fn wait_for(what: &str, is_so: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !is_so().await? {
        ensure!(begin.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Starts it and waits for all brokers.
async fn start(options: &BrokerOptions) -> Result<Broker> {
    let cluster = options.start()?;
    wait_for("all brokers serve", async || Ok((0..BROKERS).all(|broker| is_ready(options, broker)))).await?;
    Ok(cluster)
}

fn connect(options: &BrokerOptions) -> Result<Client> {
    let all: Vec<_> = (0..BROKERS).map(|broker| of_broker(options.listen, broker).to_string()).collect();
    Ok(Client::connect(all.join(",").as_str())?)
}

/// How many replicas each partition has, how many of them are in sync.
async fn replicas(client: &Client, topic: &str) -> Result<BTreeSet<(usize, usize)>> {
    let topics = client.metadata(&[topic]).await?.topics;
    let topic = topics.first().context("no such topic")?;
    Ok(topic.partitions.iter().map(|partition| (partition.replicas.len(), partition.isr.len())).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cluster_in_one_process_survives_one_of_its_brokers_and_the_death_of_all() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let options = BrokerOptions::dev(dir.path(), BROKERS)?;
    let cluster = start(&options).await?;
    let client = connect(&options)?;
    client.admin().create_topic(NewTopic::new("events").partitions(3), false).await?;
    // Whoever is asked may hear of it a moment later than who made it.
    wait_for("all replicas are there", async || {
        Ok(replicas(&client, "events").await.is_ok_and(|replicas| replicas == [(3, 3)].into()))
    })
    .await?;
    let writers = Writers::start(&client, &Load::to("events").pause(Duration::from_millis(1)), 0)?;
    writers.wait_for(500).await?;

    // One dies; the others go on.
    cluster.signal(Signal::USR1)?;
    wait_for("its partitions are led by others", async || {
        Ok(!is_ready(&options, 2) && replicas(&client, "events").await? == [(3, 2)].into())
    })
    .await?;
    writers.wait_for_each(3, 200, PATIENCE).await?;
    cluster.signal(Signal::USR2)?;
    wait_for("it is back", async || Ok(is_ready(&options, 2) && replicas(&client, "events").await? == [(3, 3)].into()))
        .await?;

    // All die at once; what was acknowledged is there, and the writers go on.
    writers.wait_for_each(3, 200, PATIENCE).await?;
    let options = cluster.kill()?;
    let cluster = start(&options).await?;
    writers.wait_for_each(3, 200, PATIENCE).await?;
    let history = writers.stop().await?;
    assert_eq!(history.acked(), history.len(), "every record was acknowledged in the end");
    check(&client, "events", &history).await?;

    // A group reads what is there, each record once, and remembers it through a stop and a start.
    let endpoint = cluster.endpoint();
    let read = |limit: &str| -> Result<usize> {
        let read = cli(&endpoint, &format!("consume events --group readers --template {{offset}}\\n {limit}"), "")?;
        Ok(read.ok()?.lines().count())
    };
    let half = history.len() / 2;
    assert_eq!(read(&format!("--limit {half}"))?, half);
    let begin = Instant::now();
    let (status, options) = cluster.stop()?;
    assert_eq!(status.code(), Some(0));
    ensure!(begin.elapsed() < Duration::from_secs(10), "it took {:?} to stop", begin.elapsed());
    let cluster = start(&options).await?;
    assert_eq!(half + read("")?, history.len());
    cluster.stop()?;
    Ok(())
}

const MANIFEST: &str = "
apiVersion: taffrail.dev/v1alpha1
kind: Topic
metadata: {name: orders, namespace: shop}
spec: {clusterRef: {name: main}, partitions: 2, deletionPolicy: Delete}
";

#[tokio::test(flavor = "multi_thread")]
async fn topics_come_from_a_manifest_and_go_to_the_trash_and_back_as_on_kubernetes() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let manifest = dir.path().join("topics.yaml");
    std::fs::write(&manifest, MANIFEST)?;
    let options = BrokerOptions::dev(dir.path(), BROKERS)?.args(["--manifest", &manifest.display().to_string()]);
    let cluster = start(&options).await?;
    let (client, endpoint) = (connect(&options)?, cluster.endpoint());
    let has = async |shape: (usize, usize), partitions: usize| {
        let topics = client.metadata(&["orders"]).await?.topics;
        let there = topics.first().map_or(0, |topic| topic.partitions.len());
        Ok(there == partitions && replicas(&client, "orders").await? == [shape].into())
    };
    wait_for("the topic is there", async || has((3, 3), 2).await).await?;
    cli(&endpoint, "produce orders --quiet", "one\ntwo\n")?.ok()?;

    // It is deleted by a call, marked, let go of, and brought back with its records.
    cli(&endpoint, "topic delete orders", "")?.ok()?;
    wait_for("it is in the trash", async || {
        Ok(cli(&endpoint, "topic list --deleted -o json", "")?.ok()?.contains("\"orders\""))
    })
    .await?;
    assert!(cli(&endpoint, "consume orders", "")?.ok().is_err());
    wait_for("it is back", async || Ok(cli(&endpoint, "topic undelete orders", "")?.code == Some(0))).await?;
    let read = cli(&endpoint, "consume orders", "")?.ok()?;
    assert_eq!(read.lines().collect::<BTreeSet<_>>(), ["one", "two"].into());

    // The manifest changes: the topic grows.
    std::fs::write(&manifest, MANIFEST.replace("partitions: 2", "partitions: 4"))?;
    wait_for("the topic has grown", async || has((3, 3), 4).await).await?;
    let said = cli(&endpoint, "topic create wide --config min.insync.replicas=4", "")?.failed(1)?;
    assert!(said.contains("minInSyncReplicas"), "{said}");
    cluster.stop()?;
    Ok(())
}

#[test]
fn a_directory_of_another_kind_or_of_more_brokers_is_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let options = BrokerOptions::dev(dir.path(), 2)?;
    let started = options.start()?;
    let data = dir.path().join("data").display().to_string();
    let refused = |arguments: &[&str], code: i32| {
        let mut command = std::process::Command::new(program("taffrail-broker")?);
        let any = ["--listen=grpc://127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--internal-listen=127.0.0.1:0"];
        cli::run(command.args(["dev", "--log-format=human", "--data-dir"]).args(arguments).args(any), "")?.failed(code)
    };
    let said = refused(&[&data], 3)?;
    assert!(said.contains(&format!("process {}", started.pid())), "{said}");
    started.stop()?;
    let said = refused(&[&data, "--brokers=1"], USAGE)?;
    assert!(said.contains("say --brokers 2 or more"), "{said}");

    let alone = tempfile::tempdir()?;
    BrokerOptions::new(alone.path())?.start()?.stop()?;
    let said = refused(&[&alone.path().join("data").display().to_string()], USAGE)?;
    assert!(said.contains("a broker that is alone"), "{said}");
    Ok(())
}
