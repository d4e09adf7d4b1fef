//! `make demo-kubernetes`: the main job on a real Kubernetes. Three nodes come up on this machine, the chart is installed, and a
//! Cluster of three brokers and a Topic are applied. 20,000 flights go in from two pods, one with the command line, one in
//! Python with nothing but generated stubs; a group of three pods reads them. Half way a broker's pod is killed. Then a fresh
//! reader proves that nothing is missing, doubled or out of order, and everything is taken down.
//!
//! With TAFFRAIL_E2E_KUBECONFIG it runs in the cluster that this file names, which needs the images (`make images`).

mod kubectl;
mod objects;
mod stream;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use taffrail_e2e::cli::{cache, project};
use taffrail_e2e::flights;
use taffrail_e2e::flights::proof::{Record, prove};
use taffrail_e2e::kubernetes::lab::{KUBECONFIG, Sandbox};
use taffrail_e2e::kubernetes::programs;

use crate::kubectl::{helm, kubectl, wait};
use crate::objects::{CLUSTER, NAMESPACE, OPERATOR_NAMESPACE, READERS, TOPIC};
use crate::stream::{Share, produce};

const IMAGES: [&str; 4] = ["taffrail-broker", "taffrail-operator", "taffrail", "python-client"];
const PATIENCE: Duration = Duration::from_mins(3);
/// The broker that is killed.
const VICTIM: &str = "main-1";
/// Says that this process is the one inside of the cluster.
const INSIDE: &str = "inside";

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some(INSIDE) {
        return run();
    }
    if let Some(kubeconfig) = std::env::var_os(KUBECONFIG) {
        let path = std::env::var("PATH").context("PATH")?;
        let mut again = Command::new(std::env::current_exe()?);
        again.env("KUBECONFIG", kubeconfig).env("PATH", format!("{}:{path}", programs()?.display()));
        shown(again.arg(INSIDE))?;
        return clear();
    }
    let begin = Instant::now();
    let sandbox = Sandbox::start()?;
    sandbox.provide(&IMAGES)?;
    step(&format!("a Kubernetes of three nodes is up after {:.1} s, with the images", begin.elapsed().as_secs_f64()));
    let mut inside = Command::new(project().join("e2e/cluster/enter"));
    inside.env("TAFFRAIL_CLUSTER", sandbox.folder()).env("TAFFRAIL_CACHE", cache()?);
    let outcome = shown(inside.arg(std::env::current_exe()?).arg(INSIDE));
    sandbox.stop()?;
    outcome?;
    step("took everything down");
    Ok(())
}

/// Runs a command whose output is this one's.
fn shown(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    ensure!(status.success(), "the demo ended with {status}");
    Ok(())
}

/// In somebody's own cluster only what the demo has made goes; the definitions stay, with all objects of others.
fn clear() -> Result<()> {
    kubectl(&["delete", "namespace", NAMESPACE])?;
    helm(&["uninstall", "taffrail", "-n", OPERATOR_NAMESPACE, "--wait"])?;
    step("took everything down but the definitions of the kinds");
    Ok(())
}

fn step(text: &str) {
    println!("• {text}");
}

/// The demo, where kubectl and helm find the cluster.
fn run() -> Result<()> {
    install()?;
    let lines = flights::lines()?;
    let share = Share::of(&lines)?;
    kubectl::apply(&objects::pods())?;
    for reader in READERS {
        wait(&format!("pod/{reader}"), "condition=Ready", PATIENCE)?;
    }
    step(&format!("{} pods read as a group", READERS.len()));

    let streaming = Instant::now();
    produce("python", &share.python, None)?;
    step(&format!("a pod in Python stored the {} flights from airports A to C", share.python.len()));
    let said = produce("producer", &share.command_line, Some(&kill))?;
    let rate = lines.len() as f64 / streaming.elapsed().as_secs_f64();
    step(&format!("a pod with the command line stored the others: {}", said.trim()));
    step(&format!("{rate:.0} flights/s with both pods' start, the kill and the restart in between"));

    wait(&format!("pod/{VICTIM}"), "condition=Ready", PATIENCE)?;
    let (read, again) = read_by_group(lines.len())?;
    println!("\n$ kubectl get taffrail\n{}", kubectl(&["get", "taffrail", "-n", NAMESPACE])?);
    let from = ["exec", READERS[0], "-n", NAMESPACE, "--", "/usr/local/bin/taffrail"];
    let stored = kubectl(&[&from[..], &["consume", TOPIC, "--from", "earliest", "-o", "json"]].concat())?;
    let proof = prove(&lines, &Record::all(&stored)?)?;
    println!("{proof}  records read by the group       {read} of {read}; {again} of them more than once\n");
    Ok(())
}

/// Installs the chart, and applies what users write.
fn install() -> Result<()> {
    let begin = Instant::now();
    let chart = project().join("helm/taffrail").to_string_lossy().into_owned();
    let options = ["-n", OPERATOR_NAMESPACE, "--create-namespace", "--wait", "--timeout", "3m"];
    helm(&[&["upgrade", "--install", "taffrail", &chart], &options[..]].concat())?;
    step(&format!("`helm install`: the operator is ready after {:.1} s", begin.elapsed().as_secs_f64()));
    let begin = Instant::now();
    kubectl::apply(objects::MANIFEST)?;
    wait(&format!("clusters.taffrail.dev/{CLUSTER}"), "condition=Ready", PATIENCE)?;
    step(&format!("`kubectl apply`: three brokers are ready after {:.1} s", begin.elapsed().as_secs_f64()));
    wait(&format!("topics.taffrail.dev/{TOPIC}"), "condition=Ready", PATIENCE)?;
    step(&format!("topic {TOPIC} is ready after {:.1} s", begin.elapsed().as_secs_f64()));
    Ok(())
}

/// Kills a broker, as the loss of its node would.
fn kill(handed_over: usize) -> Result<()> {
    kubectl(&["delete", "pod", VICTIM, "-n", NAMESPACE, "--grace-period=0", "--force"])?;
    step(&format!(
        "killed the broker pod {VICTIM} after {handed_over} flights; producer and readers go on by themselves"
    ));
    Ok(())
}

/// Waits until the group has read everything: how many different records, and how many of them again.
fn read_by_group(wanted: usize) -> Result<(usize, usize)> {
    let begin = Instant::now();
    loop {
        let mut printed = vec![];
        for reader in READERS {
            printed.extend(Record::all(&kubectl(&["logs", reader, "-n", NAMESPACE])?)?);
        }
        let places: BTreeSet<_> = printed.iter().map(|record| (record.partition, record.offset)).collect();
        if places.len() >= wanted {
            return Ok((places.len(), printed.len() - places.len()));
        }
        ensure!(begin.elapsed() < PATIENCE, "the group has read {} of {wanted} within {PATIENCE:?}", places.len());
        std::thread::sleep(Duration::from_secs(1));
    }
}
