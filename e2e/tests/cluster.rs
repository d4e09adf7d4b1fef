//! Brokers of a cluster and the operator, with their metadata in a real API server.

use anyhow::{Result, ensure};
use taffrail_e2e::cli::cli;
use taffrail_e2e::kubernetes::members::Members;

fn consume(endpoint: &str, topic: &str) -> Result<Vec<String>> {
    let read = cli(endpoint, &format!("consume {topic} --from earliest"), "")?.ok()?;
    let mut lines: Vec<_> = read.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    let mut numbers: Vec<_> = range.map(|n| n.to_string()).collect();
    numbers.sort();
    numbers
}

#[test]
fn a_topic_is_served_by_all_brokers_and_outlives_them() -> Result<()> {
    let begin = std::time::Instant::now();
    let mut members = Members::start(3)?;
    eprintln!("brokers ready after {:?}", begin.elapsed());
    members.wait_condition("cluster/main", "Accepted=true").ok();
    members.apply_topic("flights", 6, "")?;
    members.wait_condition("topic/flights", "Ready")?;
    eprintln!("topic ready after {:?}", begin.elapsed());

    let endpoints: Vec<_> = (0..3).map(|id| members.broker(id).map(|b| b.endpoint())).collect::<Result<_>>()?;
    let records = numbers(0..1_000).join("\n");
    cli(&endpoints[0], "produce flights", &records)?.ok()?;
    for endpoint in &endpoints {
        ensure!(consume(endpoint, "flights")? == numbers(0..1_000), "every broker gives all records");
    }

    // A crash, then an orderly stop: the records are there again, and the others went on meanwhile.
    let options = members.kill(1)?;
    members.wait("broker 1 is fenced", || {
        Ok(members.kubectl(&["get", "broker", "main-1", "-o", "jsonpath={.spec.fenced}"])?.ok()? == "true")
    })?;
    members.restart(1, &options)?;
    members.wait_condition("topic/flights", "Ready")?;
    ensure!(consume(&endpoints[1], "flights")? == numbers(0..1_000), "nothing is lost by a crash");
    let options = members.stop(2)?;
    members.restart(2, &options)?;
    members
        .wait("all is served again", || Ok(consume(&endpoints[0], "flights").is_ok_and(|read| read.len() == 1_000)))?;
    Ok(())
}

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
    members.wait("broker 0 knows the topic", || Ok(consume(&endpoint, "flights").is_ok()))?;
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
    let is_whole = || Ok(consume(&endpoint, "flights").is_ok_and(|read| read == numbers(0..500)));
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
    let is_whole = || Ok(consume(&endpoint, "flights").is_ok_and(|read| read == numbers(0..500)));
    members.wait("all records are there", is_whole)?;
    Ok(())
}
