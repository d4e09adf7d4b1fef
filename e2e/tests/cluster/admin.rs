//! The command line against a cluster: each call at any broker, and the Topic object is what it changes.

use anyhow::{Result, ensure};
use serde_json::Value;
use taffrail_e2e::kubernetes::members::Members;

use crate::numbers;

const FAILED: i32 = 1;
const NOT_FOUND: i32 = 3;

fn names(members: &Members, broker: usize, more: &str) -> Result<Vec<String>> {
    let listed: Value = serde_json::from_str(&members.cli(broker, &format!("topic list -o json {more}"), "")?.ok()?)?;
    let name = |topic: &Value| topic["name"].as_str().map(str::to_owned);
    let ours = |name: &String| !name.starts_with("__");
    Ok(listed.as_array().into_iter().flatten().filter_map(name).filter(ours).collect())
}

#[test]
fn topics_are_made_changed_deleted_and_brought_back_by_the_command_line() -> Result<()> {
    let members = Members::start(2)?;
    members.cli(0, "topic create orders --partitions 3 --config retention=2h", "")?.ok()?;
    let spec = members.json("get topic orders")?["spec"].clone();
    ensure!(spec["partitions"] == 3 && spec["clusterRef"]["name"] == "main", "{spec}");
    ensure!(spec["config"]["retention"] == "2h", "{spec}");
    let error = members.cli(1, "topic create orders", "")?.failed(FAILED)?;
    ensure!(error.contains("exists"), "{error}");
    members.cli(1, "topic create orders --if-not-exists", "")?.ok()?;
    members.cli(1, "topic create maybe --dry-run", "")?.ok()?;
    ensure!(members.kubectl(&["get", "topic", "maybe"])?.code != Some(0), "a dry run makes nothing");

    // A name that no object can have.
    members.cli(1, "topic create My_Topic", "")?.ok()?;
    for broker in 0..2 {
        members.wait("all brokers list both", || Ok(names(&members, broker, "")? == ["My_Topic", "orders"]))?;
    }

    // What one broker has changed is there at once, and soon at the other.
    members.cli(1, "topic alter orders --partitions 5 --config retention=1h", "")?.ok()?;
    let described: Value = serde_json::from_str(&members.cli(1, "topic describe orders -o json", "")?.ok()?)?;
    ensure!(described[0]["partitions"].as_array().map(Vec::len) == Some(5), "{described}");
    ensure!(described[0]["config"]["retention.ms"]["value"] == "3600000", "{described}");
    let spec = members.json("get topic orders")?["spec"].clone();
    ensure!(spec["partitions"] == 5 && spec["config"]["retention"] == "1h", "{spec}");
    members.cli(0, "topic alter orders --partitions 2", "")?.failed(FAILED)?;
    members.cli(0, "topic alter nobody --partitions 2", "")?.failed(NOT_FOUND)?;
    members.cli(1, "produce orders", &numbers(0..200).join("\n"))?.ok()?;

    let said = members.cli(0, "topic delete orders", "")?.ok()?;
    ensure!(said.contains("its data stays"), "{said}");
    ensure!(members.kubectl(&["get", "topic", "orders"])?.code != Some(0), "the object is gone");
    members.cli(0, "consume orders", "")?.failed(NOT_FOUND)?;
    members.cli(0, "topic delete orders", "")?.failed(NOT_FOUND)?;
    ensure!(names(&members, 0, "")? == ["My_Topic"], "it is not listed");
    ensure!(names(&members, 0, "--deleted")? == ["My_Topic", "orders"], "it is listed with those in the trash");
    members.cli(0, "topic undelete nobody", "")?.failed(NOT_FOUND)?;
    members.cli(0, "topic undelete orders --new-name purchases", "")?.failed(FAILED)?;
    members.cli(0, "topic undelete orders", "")?.ok()?;
    ensure!(members.consume(0, "orders")? == numbers(0..200), "it is back with its records");
    Ok(())
}

#[test]
fn a_topic_in_another_namespace_is_changed_there() -> Result<()> {
    let members = Members::start(1)?;
    let shop = format!("{}-shop", members.namespace());
    let allow = r#"{"spec":{"allowedTopicNamespaces":["*"]}}"#;
    members.kubectl(&["patch", "cluster", "main", "--type=merge", "-p", allow])?.ok()?;
    members.kubectl(&["create", "namespace", &shop])?.ok()?;
    let topic = format!(
        "apiVersion: taffrail.dev/v1alpha1\nkind: Topic\nmetadata: {{name: carts}}\n\
         spec: {{clusterRef: {{name: main, namespace: {}}}, partitions: 2}}\n",
        members.namespace()
    );
    members.apply_in(&shop, &topic)?;
    members.wait("it is served", || Ok(names(&members, 0, "")? == ["carts"]))?;
    members.cli(0, "topic alter carts --partitions 3", "")?.ok()?;
    let partitions = members.kubectl(&["get", "topic", "carts", "-n", &shop, "-o", "jsonpath={.spec.partitions}"])?;
    ensure!(partitions.ok()? == "3", "the object is what was changed");
    Ok(())
}
