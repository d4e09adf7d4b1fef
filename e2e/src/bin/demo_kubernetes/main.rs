//! `make demo-kubernetes`: the main job on a real Kubernetes. Three nodes come up on this machine, the chart is installed, and a
//! Cluster of three brokers and a Topic are applied. 20,000 flights go in from two pods, one with the command line, one in
//! Python with nothing but generated stubs; a group of three pods reads them. In mid-stream the pod of a partition's leader is
//! killed, and later the node of the leader that took its place loses its power. Then a fresh reader proves that nothing is
//! missing, doubled or out of order, and everything is taken down.
//!
//! With TAFFRAIL_E2E_KUBECONFIG it runs in the cluster that this file names, which needs the images (`make images`) and
//! keeps the power of its nodes.

mod kubectl;
mod objects;
mod stream;
mod victims;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use taffrail_e2e::cli::{cache, project};
use taffrail_e2e::flights;
use taffrail_e2e::flights::proof::{Record, prove};
use taffrail_e2e::kubernetes::lab::{KUBECONFIG, Lab, Sandbox};
use taffrail_e2e::kubernetes::programs;

use crate::kubectl::{helm, kubectl, wait};
use crate::objects::{CLUSTER, GROUP, NAMESPACE, OPERATOR_NAMESPACE, READERS, TOPIC};
use crate::stream::{PARTS, Share, produce};
use crate::victims::Victims;

const IMAGES: [&str; 4] = ["taffrail-broker", "taffrail-operator", "taffrail", "python-client"];
const PATIENCE: Duration = Duration::from_mins(3);
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
    let lab = Lab::here()?;
    let lab = lab.as_ref().filter(|lab| lab.is_ours());
    let victims = Victims::choose(0)?;
    let lines = flights::lines()?;
    let share = Share::of(&lines)?;
    kubectl::apply(&objects::pods(&victims.node))?;
    for reader in READERS {
        wait(&format!("pod/{reader}"), "condition=Ready", PATIENCE)?;
    }
    step(&format!("{} pods read as a group", READERS.len()));

    let streaming = Instant::now();
    produce("python", &share.python, &[])?;
    step(&format!("a pod in Python stored the {} flights from airports A to C", share.python.len()));
    let coordinator = coordinator()?;
    let dark = RefCell::new(None);
    let kill = |handed_over: usize| victims.kill_leader(handed_over);
    let whole = |_: usize| victims.wait_whole();
    let cut = |handed_over: usize| {
        if let Some(lab) = lab {
            *dark.borrow_mut() = Some(victims.cut_power(lab, handed_over)?);
        }
        Ok(())
    };
    let said =
        produce("producer", &share.command_line, &[(PARTS / 4, &kill), (PARTS / 2, &whole), (PARTS * 5 / 8, &cut)])?;
    step(&format!("a pod with the command line stored the others: {}", said.trim()));
    let seconds = streaming.elapsed().as_secs_f64();
    step(&format!("{seconds:.0} s for all, with both pods' start, the faults and the wait between them"));

    let (read, again) = read_by_group(lines.len())?;
    step(&format!(
        "the group has read on; its coordinator was broker {coordinator}, and is broker {}",
        self::coordinator()?
    ));
    if let Some(dark) = dark.take() {
        dark.end()?;
        step(&format!("node {} has power again", victims.node));
    }
    victims.wait_whole()?;
    println!("\n$ kubectl get taffrail\n{}", kubectl(&["get", "taffrail", "-n", NAMESPACE])?);
    let proof = prove(&lines, &Record::all(&taffrail(&["consume", TOPIC, "--from", "earliest", "-o", "json"])?)?)?;
    println!("{proof}  records read by the group       {read} of {read}; {again} of them more than once\n");
    Ok(())
}

/// Runs the command line in one of the readers' pods.
fn taffrail(arguments: &[&str]) -> Result<String> {
    let from = ["exec", READERS[0], "-n", NAMESPACE, "--", "/usr/local/bin/taffrail"];
    kubectl(&[&from[..], arguments].concat())
}

/// The broker that coordinates the group.
fn coordinator() -> Result<i64> {
    let group: Value = serde_json::from_str(&taffrail(&["group", "describe", GROUP, "-o", "json"])?)?;
    group["coordinator"].as_i64().context("the group has no coordinator")
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
    wait(&format!("topics.taffrail.dev/{TOPIC}"), "condition=UnderReplicated=False", PATIENCE)?;
    step(&format!("topic {TOPIC} is ready after {:.1} s, all replicas in sync", begin.elapsed().as_secs_f64()));
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
