//! A broker is its volume and its number: with another's it does not run.

use anyhow::{Context, Result, ensure};
use taffrail_e2e::kubernetes::members::Members;

#[test]
fn a_volume_of_another_broker_or_cluster_is_refused() -> Result<()> {
    let mut members = Members::start(2)?;
    let other = Members::start(1)?;
    let (first, second) = (members.stop(0)?, members.stop(1)?);

    let mut wrong = second.clone();
    wrong.data_dir.clone_from(&first.data_dir);
    let (status, _) = wrong.spawn()?.wait()?;
    let log = std::fs::read_to_string(&wrong.log)?;
    ensure!(!status.success(), "broker 1 runs with the volume of broker 0");
    ensure!(log.contains("belongs to broker 0 and this is broker 1"), "{log}");

    let mut foreign = other.options(0)?;
    foreign.data_dir.clone_from(&first.data_dir);
    let mut other = other;
    other.stop(0)?;
    let (status, _) = foreign.spawn()?.wait()?;
    let log = std::fs::read_to_string(&foreign.log)?;
    ensure!(!status.success(), "a broker runs with the volume of another cluster");
    ensure!(log.contains("belongs to cluster"), "{log}");

    // Neither has harmed the volume or the number.
    members.restart(0, &first)?;
    members.restart(1, &second)
}

#[test]
fn of_two_processes_with_one_number_the_older_gives_way() -> Result<()> {
    let mut members = Members::start(1)?;
    let incarnation = |members: &Members| -> Result<i64> {
        members.json("get broker main-0")?["spec"]["incarnation"].as_i64().context("incarnation")
    };
    let before = incarnation(&members)?;
    let older = members.take(0)?;
    let mut options = members.options(0)?;
    options.data_dir = options.data_dir.with_file_name("data-of-the-newer");
    options.listen.set_ip("127.0.1.9".parse()?);
    options.log = options.log.with_file_name("newer.log");
    members.restart(0, &options)?;
    let (status, older) = older.wait()?;
    let log = std::fs::read_to_string(&older.log)?;
    ensure!(!status.success() && log.contains("this one gives way"), "{status}: {log}");
    ensure!(incarnation(&members)? > before, "the newer has a session of its own");
    ensure!(members.broker(0)?.ended()?.is_none(), "the newer runs");
    members.apply_topic("orders", 2, "")?;
    members.wait_condition("topic/orders", "Ready")
}
