//! Topics that go and come back: what is new is empty, what is adopted is whole, what is purged is gone (M9, M10).

use anyhow::{Result, ensure};
use taffrail_e2e::kubernetes::members::Members;

use crate::numbers;

/// Waits until the object is ready and both brokers serve the topic under this id.
fn wait_served(members: &Members, object: &str, name: &str, id: &str) -> Result<()> {
    members.wait_condition(&format!("topic/{object}"), "Ready")?;
    members.wait_known(name, id)
}

#[test]
fn a_topic_made_again_is_empty_until_one_adopts_the_data() -> Result<()> {
    let members = Members::start(2)?;
    members.apply_topic("orders", 4, "")?;
    members.wait_topic("orders")?;
    let first = members.topic_id("orders")?;
    members.cli(0, "produce orders", &numbers(0..500).join("\n"))?.ok()?;

    // Made again at once, and never with what the first had.
    members.kubectl(&["delete", "topic", "orders"])?.ok()?;
    members.apply_topic("orders", 4, "")?;
    members.wait_condition("topic/orders", "Ready")?;
    let second = members.topic_id("orders")?;
    ensure!(first != second, "a topic made again has an id of its own");
    wait_served(&members, "orders", "orders", &second)?;
    for broker in 0..2 {
        ensure!(members.consume(broker, "orders")?.is_empty(), "broker {broker} shows old records");
    }
    members.cli(1, "produce orders", &numbers(1_000..1_010).join("\n"))?.ok()?;
    ensure!(members.consume(0, "orders")? == numbers(1_000..1_010), "only the new records are there");

    // What is in use is not given away; what is not comes back whole.
    let adopting = |name: &str, topic_name: &str, id: &str, partitions: i32| {
        members.apply(&format!(
            "apiVersion: taffrail.dev/v1alpha1\nkind: Topic\n\
             metadata: {{name: {name}, annotations: {{taffrail.dev/adopt: {id}}}}}\n\
             spec: {{clusterRef: {{name: main}}, topicName: {topic_name}, partitions: {partitions}}}\n"
        ))
    };
    members.kubectl(&["delete", "topic", "orders"])?.ok()?;
    adopting("other", "other", &first, 4)?;
    members.wait_condition("topic/other", "Accepted=false")?;
    adopting("back", "orders", &first, 4)?;
    wait_served(&members, "back", "orders", &first)?;
    ensure!(members.topic_id("back")? == first, "it has the id that it adopted");
    for broker in 0..2 {
        ensure!(members.consume(broker, "orders")? == numbers(0..500), "broker {broker} shows other records");
    }
    adopting("thief", "orders", &first, 4)?;
    members.wait_condition("topic/thief", "Accepted=false")?;
    ensure!(members.consume(0, "orders")? == numbers(0..500), "it is still whole");
    Ok(())
}

#[test]
fn a_topic_that_takes_its_data_along_is_purged_and_cannot_be_adopted() -> Result<()> {
    let members = Members::start(2)?;
    members.apply_topic("brief", 4, ", deletionPolicy: Delete, config: {trashRetention: 10m}")?;
    members.wait_topic("brief")?;
    members.cli(0, "produce brief", &numbers(0..200).join("\n"))?.ok()?;
    let id = members.topic_id("brief")?;
    let finalizers = members.json("get topic brief")?["metadata"]["finalizers"].clone();
    ensure!(finalizers == serde_json::json!(["taffrail.dev/data"]), "finalizers: {finalizers}");

    // The object goes while the data is still in the trash.
    let deleted = members.kubectl(&["delete", "topic", "brief", "--timeout=120s"])?;
    ensure!(deleted.code == Some(0), "the finalizer stays: {}\n{}", deleted.err, members.dump());
    let slices = members.slices(&id)?;
    ensure!(!slices.is_empty() && slices.iter().all(|slice| slice["spec"]["tombstone"].is_object()), "{slices:?}");

    // Brought back in time it is whole; deleted again its time begins anew.
    let adopt = format!(
        "apiVersion: taffrail.dev/v1alpha1\nkind: Topic\nmetadata: {{name: brief, annotations: {{taffrail.dev/adopt: {id}}}}}\n\
         spec: {{clusterRef: {{name: main}}, partitions: 4, deletionPolicy: Delete, config: {{trashRetention: 2s}}}}\n"
    );
    members.apply(&adopt)?;
    wait_served(&members, "brief", "brief", &id)?;
    ensure!(members.consume(1, "brief")? == numbers(0..200), "what was in the trash is whole");
    let slices = members.slices(&id)?;
    ensure!(slices.iter().all(|slice| slice["spec"]["tombstone"].is_null()), "out of the trash: {slices:?}");
    members.kubectl(&["delete", "topic", "brief", "--timeout=120s"])?.ok()?;
    members.wait("the slices go", || Ok(members.slices(&id)?.is_empty()))?;
    members.wait("the cluster forgets it", || {
        Ok(members.json("get clusterstate main")?["spec"]["topics"].get(&id).is_none())
    })?;
    members.apply(&adopt)?;
    members.wait_condition("topic/brief", "Accepted=false")?;
    let topic = members.json("get topic brief")?;
    ensure!(topic.to_string().contains("AdoptUnknown"), "{topic}");
    Ok(())
}
