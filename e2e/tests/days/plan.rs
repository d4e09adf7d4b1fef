//! What a plan says of restarts is what comes of the change.

use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use taffrail_e2e::cli;
use taffrail_e2e::faults::all;
use taffrail_e2e::faults::ground::IMAGES;
use taffrail_e2e::kubernetes::lab::{self, Lab, Namespace, until};
use taffrail_e2e::process::program;

use crate::BROKERS;
use crate::operate::{cluster, make_topic, pods, wait_ready};

/// What `taffrail plan` says of a manifest, for programs.
fn plan(lab: &Lab, namespace: &Namespace<'_>, manifest: &str) -> Result<Value> {
    let mut command = Command::new(program("taffrail")?);
    command.args(["plan", "-f", "-", "-o", "json", "--namespace", namespace.name()]);
    let said = cli::run(command.env("KUBECONFIG", lab.kubeconfig()), manifest)?.ok()?;
    Ok(serde_json::from_str::<Value>(&said)?[0].clone())
}

#[test]
fn the_brokers_that_a_plan_names_are_restarted_and_then_there_is_nothing_to_do() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        lab.install_operator()?;
        let namespace = lab.namespace("plan")?;
        namespace.apply(&cluster("", ""))?;
        wait_ready(&namespace)?;
        make_topic(&namespace, "events")?;
        let before = pods(&namespace)?;
        let change = cluster(", pod: {env: [{name: RUST_BACKTRACE, value: \"1\"}]}", "");
        let planned = plan(lab, &namespace, &change)?;
        let named: Vec<_> = planned["restarts"].as_array().into_iter().flatten().map(|r| r["broker"].clone()).collect();
        ensure!(named == [json!(0), json!(1), json!(2)] && planned["refused"] == json!([]), "{planned}");
        ensure!(pods(&namespace)? == before, "a plan has restarted brokers");

        namespace.apply(&change)?;
        until("all brokers are others", BROKERS, async || {
            let now = pods(&namespace)?;
            Ok((now.len() == before.len() && now.iter().all(|pod| !before.contains(pod))).then_some(()))
        })
        .await?;
        wait_ready(&namespace)?;
        let planned = plan(lab, &namespace, &change)?;
        ensure!(planned["restarts"] == json!([]) && planned["objects"] == json!([]), "{planned}");
        Ok(())
    })
}
