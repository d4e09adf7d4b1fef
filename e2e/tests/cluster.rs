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
