//! Internal objects that are lost, and rebuilt from what the brokers saw last.

use anyhow::{Result, ensure};
use taffrail_e2e::cli::cli;
use taffrail_e2e::kubernetes::members::Members;

use super::numbers;

/// Brings back what is missing, as docs/operations.md says.
fn recover(members: &Members, endpoint: &str, more: &str) -> Result<()> {
    let lost = cli(endpoint, &format!("cluster recover {more}"), "")?.ok()?;
    let created = members.create(&lost)?;
    ensure!(created.out.contains(" created"), "nothing was missing: {created:?}");
    let left_alone = created.err.lines().all(|line| line.contains("AlreadyExists"));
    ensure!(left_alone, "{created:?}");
    Ok(())
}

#[test]
fn m9_lost_slices_and_a_lost_cluster_state_are_rebuilt_from_what_the_brokers_saw() -> Result<()> {
    let mut members = Members::start(2)?;
    members.apply_topic("flights", 4, "")?;
    members.wait_condition("topic/flights", "Ready")?;
    let endpoint = members.broker(0)?.endpoint();
    members.wait("broker 0 knows the topic", || Ok(members.consume(0, "flights").is_ok()))?;
    cli(&endpoint, "produce flights", &numbers(0..500).join("\n"))?.ok()?;

    let id = members.kubectl(&["get", "topic", "flights", "-o", "jsonpath={.status.topicId}"])?.ok()?;
    members.kubectl(&["delete", "partitionslices", "--selector", &format!("taffrail.dev/topic-id={id}")])?.ok()?;
    let reason = "jsonpath={.status.conditions[?(@.type=='Ready')].reason}";
    members.wait("the loss is told", || {
        Ok(members.kubectl(&["get", "topic", "flights", "-o", reason])?.ok()? == "SlicesLost")
    })?;
    let slices = members.kubectl(&["get", "partitionslices", "-o", "name"])?.ok()?;
    ensure!(!slices.contains(&id), "nothing is made anew in its place: {slices}");
    recover(&members, &endpoint, "")?;
    members.wait_condition("topic/flights", "Ready")?;
    let is_whole = || Ok(members.consume(0, "flights").is_ok_and(|read| read == numbers(0..500)));
    members.wait("all records are there", is_whole)?;

    // The ClusterState: no broker makes another in its place, whoever becomes controller.
    let cluster_id = "jsonpath={.spec.clusterId}";
    let before = members.kubectl(&["get", "clusterstate", "main", "-o", cluster_id])?.ok()?;
    members.kubectl(&["delete", "clusterstate", "main"])?.ok()?;
    let holder =
        members.kubectl(&["get", "lease", "main-controller", "-o", "jsonpath={.spec.holderIdentity}"])?.ok()?;
    let controller = usize::from(holder.starts_with("main-1"));
    let options = members.stop(controller)?;
    members.wait("the other says that it is gone", || Ok(members.logs().contains("taffrail cluster recover")))?;
    ensure!(members.kubectl(&["get", "clusterstate", "main"])?.code != Some(0), "it was made anew");
    let other = members.broker(1 - controller)?.endpoint();
    let refused = cli(&other, "cluster recover", "")?;
    ensure!(refused.code != Some(0) && refused.err.contains("--allow-missing"), "{refused:?}");
    recover(&members, &other, &format!("--allow-missing {controller}"))?;
    ensure!(members.kubectl(&["get", "clusterstate", "main", "-o", cluster_id])?.ok()? == before);
    members.restart(controller, &options)?;
    members.apply_topic("later", 2, "")?;
    members.wait_condition("topic/later", "Ready")?;
    members.wait_condition("topic/flights", "Ready")?;
    let is_whole = || Ok(members.consume(0, "flights").is_ok_and(|read| read == numbers(0..500)));
    members.wait("all records are there", is_whole)?;
    Ok(())
}
