//! `taffrail-operator plan`, and `taffrail plan`, which runs it, against an API server: what they say and how they end. Here are no
//! pods, so restarts are in `e2e/tests/days/plan.rs`.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use taffrail_e2e::cli::{self, Ended};
use taffrail_e2e::kubernetes::members::Members;
use taffrail_e2e::process::{free_address, program};

/// The API server could not be asked.
const FAILED: i32 = 1;
/// The manifest is wrong.
const USAGE: i32 = 2;
/// Something of it would be refused.
const REFUSED: i32 = 3;

/// What both programs say of a manifest, which must be the same.
fn plan(members: &Members, manifest: &str, more: &[&str]) -> Result<Ended> {
    let run = |name: &str| -> Result<Ended> {
        let mut command = Command::new(program(name)?);
        command.args(["plan", "-f", "-", "--namespace", members.namespace()]).args(more);
        cli::run(command.env("KUBECONFIG", members.api().kubeconfig()), manifest)
    };
    let (own, other) = (run("taffrail-operator")?, run("taffrail")?);
    ensure!(own == other, "taffrail-operator: {own:?}\ntaffrail: {other:?}");
    Ok(own)
}

/// The Cluster as it is, with these fields of its spec.
fn changed(members: &Members, fields: &Value) -> Result<String> {
    let mut cluster = members.json("get clusters.taffrail.dev main")?;
    for (name, value) in fields.as_object().into_iter().flatten() {
        cluster["spec"][name] = value.clone();
    }
    Ok(cluster.to_string())
}

/// What a plan must not change: generations rise with every write of a spec.
fn generations(members: &Members) -> Result<Vec<Value>> {
    let of = |object: &str| -> Result<Value> {
        Ok(members.json(&format!("get {object}"))?["metadata"]["generation"].clone())
    };
    ["clusters.taffrail.dev main", "statefulset main", "topics.taffrail.dev pairs"].into_iter().map(of).collect()
}

/// Replicas of all topics, internal ones too, that a broker has.
fn replicas_on(members: &Members, broker: i32) -> Result<usize> {
    let slices = members.json("get partitionslices")?;
    let slices = slices["items"].as_array().into_iter().flatten();
    let states = slices.flat_map(|slice| slice["spec"]["partitions"].as_array().into_iter().flatten());
    let is_there = |state: &&Value| state["replicas"].as_array().is_some_and(|all| all.contains(&json!(broker)));
    Ok(states.filter(is_there).count())
}

#[test]
fn plans_say_what_moves_what_is_refused_and_that_nothing_changes() -> Result<()> {
    let members = Members::start(3)?;
    members.apply_topic("pairs", 3, ", replicationFactor: 2")?;
    members.wait_topic("pairs")?;
    members.wait("the brokers' StatefulSet is there", || {
        Ok(members.kubectl(&["get", "statefulset", "main"])?.code == Some(0))
    })?;
    let before = generations(&members)?;

    let said = plan(&members, &changed(&members, &json!({}))?, &[])?.ok()?;
    ensure!(said.contains("nothing would change"), "{said}");

    let said = plan(&members, &changed(&members, &json!({ "replicas": 4 }))?, &[])?.ok()?;
    ensure!(said.contains("adds        brokers 3"), "{said}");
    let fewer = changed(&members, &json!({ "replicas": 2 }))?;
    let said = plan(&members, &fewer, &[])?.ok()?;
    ensure!(said.contains("drains      broker 2: "), "{said}");
    members.wait("the plan counts the replicas that are there", || {
        let plans: Value = serde_json::from_str(&plan(&members, &fewer, &["-o", "json"])?.ok()?)?;
        let there = replicas_on(&members, 2)?;
        Ok(there > 0 && plans[0]["drained"] == json!([{ "broker": 2, "replicas": there }]))
    })?;
    let what_restarts = changed(&members, &json!({ "pod": { "env": [{ "name": "RUST_BACKTRACE", "value": "1" }] } }))?;
    let plans: Value = serde_json::from_str(&plan(&members, &what_restarts, &["-o", "json"])?.ok()?)?;
    let since = plans[0]["restartsSince"].as_array().context("restartsSince")?;
    ensure!(since.iter().any(|line| line.as_str().is_some_and(|line| line.contains("RUST_BACKTRACE"))), "{plans}");

    // A drain that could never end, and what the API server would not take.
    let said = plan(&members, &changed(&members, &json!({ "replicas": 1 }))?, &[])?;
    ensure!(said.code == Some(REFUSED) && said.out.contains("refused     TooFewBrokersStay"), "{said:?}");
    let mut storage = members.json("get clusters.taffrail.dev main")?["spec"]["storage"].clone();
    storage["storageClassName"] = "another".into();
    let said = plan(&members, &changed(&members, &json!({ "storage": storage }))?, &[])?;
    ensure!(said.code == Some(REFUSED) && said.out.contains("refused     NotAdmitted"), "{said:?}");

    let said = plan(&members, "kind: Cluster\nspec: [", &[])?;
    ensure!(said.code == Some(USAGE) && said.out.is_empty() && !said.err.is_empty(), "{said:?}");
    ensure!(generations(&members)? == before, "a plan has written something");
    Ok(())
}

#[test]
fn a_plan_without_an_api_server_says_so() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let kubeconfig = dir.path().join("kubeconfig");
    let nobody = free_address()?;
    let config = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         clusters: [{{name: test, cluster: {{server: \"http://{nobody}\"}}}}]\nusers: [{{name: me, user: {{}}}}]\n\
         contexts: [{{name: test, context: {{cluster: test, user: me}}}}]\n"
    );
    std::fs::write(&kubeconfig, config)?;
    let cluster = "apiVersion: taffrail.dev/v1alpha1\nkind: Cluster\nmetadata: {name: main}\n\
                   spec: {storage: {size: 1Gi}}\n";
    let mut command = Command::new(program("taffrail-operator")?);
    let said = cli::run(command.args(["plan", "-f", "-"]).env("KUBECONFIG", &kubeconfig), cluster)?.failed(FAILED)?;
    ensure!(said.contains("read what is there"), "{said}");
    Ok(())
}
