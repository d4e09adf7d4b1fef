//! Disks that lose their power, fill up, are slow, fail, or flip bits: 3, 4, 11, 12, 13, 14.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use taffrail_client::Reason;
use taffrail_e2e::damage::{find, flip};
use taffrail_e2e::faults::all;
use taffrail_e2e::faults::ground::{BROKERS, Ground, IMAGES, PARTITIONS, Setting};
use taffrail_e2e::faults::trial::{Fault, Trial};
use taffrail_e2e::history::{Violation, value};
use taffrail_e2e::kubernetes::lab::{self, Disk, Lab, PATIENCE, add_disks, until};
use taffrail_e2e::stubs;
use taffrail_e2e::writers::{Load, Writers, read_all, starts};
use tokio::time::{sleep, timeout};

use super::{FAILOVER, HEAL, secs};

/// A Cluster whose brokers have disks of their own.
pub(super) async fn on_disks<'a>(lab: &'a Lab, name: &str, config: &str) -> Result<(Ground<'a>, Vec<Disk<'a>>)> {
    let namespace = lab.namespace(name)?;
    let disks = add_disks(&namespace, 512)?;
    let setting = Setting {
        spec: format!("  pod: {{env: {}}}\n", Disk::ENVIRONMENT),
        storage: format!(", storageClassName: {}", namespace.name()),
        config: config.to_owned(),
    };
    Ok((Ground::start_in(namespace, &setting).await?, disks))
}

/// The disk of a broker.
pub(super) fn disk_of<'d, 'a>(ground: &Ground<'_>, disks: &'d [Disk<'a>], broker: i32) -> Result<&'d Disk<'a>> {
    let node = ground.pod(broker).node()?;
    disks.iter().find(|disk| disk.node() == node).with_context(|| format!("node {node} has no disk"))
}

const POWER: Fault = Fault {
    number: "3",
    fault: "a broker that leads loses its power, and what it had not synced",
    injected: "EXT4_IOC_SHUTDOWN without the journal, and SIGKILL; the pod is made anew on the remounted disk, with another boot id",
    promised: "safe with durability os; its partitions acknowledge again ≤ 10 s; it comes back as one that may have lost records, and is in \
               sync ≤ 60 s",
};

#[test]
fn f3_d3_a_broker_loses_its_power() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&POWER, async |trial| {
            let (ground, disks) = on_disks(lab, "power", "").await?;
            let (broker, _) = ground.leader().await?;
            let (pod, disk) = (ground.pod(broker), disk_of(&ground, &disks, broker)?);
            let begin = Instant::now();
            disk.shut_down()?;
            pod.kill()?;
            let gone = disk.take_from(&pod)?;
            ground.goes_on(secs(60)).await?;
            trial.within("every partition acknowledges after", begin.elapsed(), FAILOVER);
            gone.end().await?;
            let back = Instant::now();
            trial.within("all replicas in sync after its return", ground.heals(HEAL).await?.max(back.elapsed()), HEAL);
            let object = format!("brokers.taffrail.dev/main-{broker}");
            let continues = ground.namespace().get(&object, ".spec.continues")?;
            trial.must(continues.is_empty(), format!("it says that it goes on with session {continues}"));
            ground.finish(trial, FAILOVER).await.map(drop)
        })
        .await
    })
}

const POWER_OF_ALL: Fault = Fault {
    number: "4",
    fault: "all brokers lose their power at once, and what they had not synced",
    injected: "as 3, of all three",
    promised: "durability disk: safe; durability os: only the last records of a partition may be lost, and that is reported; the replicas \
               agree ≤ 60 s after the return",
};

#[test]
fn f4_d4_l7_all_brokers_lose_their_power() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&POWER_OF_ALL, async |trial| {
            let (ground, disks) = on_disks(lab, "dark", ", durability: disk").await?;
            ground.add_topic("clicks", PARTITIONS, "")?;
            let load = Load::to("clicks").padding(100).apart(PARTITIONS as u64);
            let clicks = Writers::start(ground.client(), &load, 0)?;
            clicks.wait_for(2_000).await?;
            let clicks = clicks.stop().await?;
            for disk in &disks {
                disk.shut_down()?;
            }
            let mut gone = vec![];
            for broker in 0..BROKERS {
                ground.pod(broker).kill()?;
            }
            for broker in 0..BROKERS {
                gone.push(disk_of(&ground, &disks, broker)?.take_from(&ground.pod(broker))?);
            }
            for disk in gone {
                disk.end().await?;
            }
            let back = Instant::now();
            ground.goes_on(secs(120)).await?;
            trial.within("every partition acknowledges after the return", back.elapsed(), HEAL);
            trial.within("all replicas in sync after the return", back.elapsed() + ground.heals(HEAL).await?, HEAL);

            let lost = lost_at_the_end(&ground, &clicks).await?;
            trial.saw(format!("durability os: {lost} of {} acknowledged records lost", clicks.acked()));
            let said = ground
                .namespace()
                .get("topics.taffrail.dev/clicks", ".status.conditions[?(@.type=='PossibleLoss')].reason")?;
            trial.saw(format!("PossibleLoss: {said}"));
            let is_told = ["UncleanRecovery", "Recovered"].contains(&said.as_str());
            trial.must(lost == 0 || is_told, "a loss that nobody reports");
            ground.finish(trial, HEAL + HEAL).await.map(drop)
        })
        .await
    })
}

/// What is there of `clicks` is right and has no hole; acknowledged records may be missing only beyond the end: how many are.
async fn lost_at_the_end(ground: &Ground<'_>, history: &taffrail_e2e::history::History) -> Result<usize> {
    let seen = read_all(ground.client(), "clicks").await?;
    let ends: std::collections::BTreeMap<i32, i64> =
        seen.iter().map(|(partition, records)| (*partition, records.len() as i64)).collect();
    let at_the_end = |violation: &Violation| match violation {
        Violation::Lost { told: taffrail_e2e::history::Told::Acked { partition, offset }, .. } => {
            let end = ends.get(partition).copied().unwrap_or(0);
            offset.is_none_or(|offset| offset >= end)
        }
        _ => false,
    };
    let violations = history.check(&seen, &starts(ground.client(), "clicks").await?);
    let (lost, wrong): (Vec<_>, Vec<_>) = violations.into_iter().partition(at_the_end);
    ensure!(wrong.is_empty(), "durability os: {} violations, such as {:?}", wrong.len(), wrong.first());
    Ok(lost.len())
}

const FULL: Fault = Fault {
    number: "11",
    fault: "the disk of a broker that leads is full",
    injected: "fallocate of all but 12 MiB of its volume (its reserve is 36 MiB), 30 s",
    promised: "safe; a replica with room leads: every partition acknowledges again ≤ 20 s while the disk is full; reads go on; when there is room, it \
               takes records again without a restart, in sync ≤ 60 s",
};

#[test]
fn f11_a_disk_is_full() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&FULL, async |trial| {
            let (ground, disks) = on_disks(lab, "full", "").await?;
            let (broker, _) = ground.leader().await?;
            let (begin, full) = (Instant::now(), disk_of(&ground, &disks, broker)?.fill(12 << 20)?);
            until("it refuses appends", FAILOVER, async || Ok((refused(&ground, broker)?).then_some(()))).await?;
            stands_still_or_goes_on(&ground, trial, begin, secs(20)).await;
            let read = ground.reader().read();
            trial.must(read > 0, "nothing is read");
            sleep(secs(30).saturating_sub(begin.elapsed())).await;
            full.end()?;
            let end = Instant::now();
            ground.goes_on(secs(120)).await?;
            trial.within("every partition acknowledges after there is room", end.elapsed(), secs(30));
            trial.within("all replicas in sync after", end.elapsed() + ground.heals(HEAL).await?, HEAL);
            let restarts = ground.pod(broker).restarts()?;
            trial.must(restarts == 0, format!("it was restarted {restarts} times"));
            ground.finish(trial, HEAL).await.map(drop)
        })
        .await
    })
}

/// Whether a broker says that its disk takes nothing.
pub(super) fn refused(ground: &Ground<'_>, broker: i32) -> Result<bool> {
    let address = (ground.pod(broker).address()?, 9095).into();
    let (_, body) = taffrail_e2e::process::http_get(address, "/metrics")?;
    Ok(body.lines().any(|line| line == "taffrail_storage_disk_full 1"))
}

/// Every partition acknowledges within `limit` since `begin`: a promise that may be broken without an end of the trial.
async fn stands_still_or_goes_on(ground: &Ground<'_>, trial: &mut Trial, begin: Instant, limit: std::time::Duration) {
    match ground.goes_on(limit + secs(5)).await {
        Ok(_) => trial.within("every partition acknowledges after", begin.elapsed(), limit),
        Err(_) => trial.must(false, "partitions that it leads stand still, and nobody else takes them over"),
    }
}

const SLOW: Fault = Fault {
    number: "12",
    fault: "the disk of a broker that leads is slow",
    injected: "blkio throttle of its writes to 1 KiB/s, 45 s; the topic has durability disk",
    promised: "safe; as a follower it leaves the in-sync replicas after 10 s, as a leader it is replaced: every partition acknowledges again ≤ 25 s; \
               its memory stays below 400 MiB",
};

#[test]
fn f12_a_disk_is_slow() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&SLOW, async |trial| {
            let (ground, disks) = on_disks(lab, "slow", ", durability: disk").await?;
            let (broker, _) = ground.leader().await?;
            let pod = ground.pod(broker);
            let (begin, slow) = (Instant::now(), disk_of(&ground, &disks, broker)?.slow(&pod, 1024)?);
            stands_still_or_goes_on(&ground, trial, begin, secs(25)).await;
            sleep(secs(45).saturating_sub(begin.elapsed())).await;
            let memory = resident_mib(&pod)?;
            trial.saw(format!("{memory} MiB resident"));
            trial.must(memory < 400, format!("{memory} MiB resident"));
            slow.end()?;
            let end = Instant::now();
            ground.goes_on(secs(120)).await?;
            trial.within("every partition acknowledges after its end", end.elapsed(), secs(30));
            trial.within("all replicas in sync after", end.elapsed() + ground.heals(HEAL).await?, HEAL);
            ground.finish(trial, HEAL).await.map(drop)
        })
        .await
    })
}

/// Resident memory of a pod's first process, MiB.
fn resident_mib(pod: &lab::Pod<'_>) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pod.pids()?[0].as_raw_nonzero()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
}

const FAILS: Fault = Fault {
    number: "13",
    fault: "the disk of a broker that leads fails",
    injected: "its ext4 is aborted: every write fails from now on; after 30 s the disk is whole again and the pod made anew",
    promised: "safe: nothing is acknowledged that is not there; another leads: every partition acknowledges again ≤ 20 s; in sync ≤ 60 s \
               after the disk is back",
};

#[test]
fn f13_d5_a_disk_fails() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&FAILS, async |trial| {
            let (ground, disks) = on_disks(lab, "fails", "").await?;
            let (broker, _) = ground.leader().await?;
            let (pod, disk) = (ground.pod(broker), disk_of(&ground, &disks, broker)?);
            let begin = Instant::now();
            disk.abort()?;
            stands_still_or_goes_on(&ground, trial, begin, secs(20)).await;
            sleep(secs(30).saturating_sub(begin.elapsed())).await;
            disk.take_from(&pod)?.end().await?;
            let back = Instant::now();
            ground.goes_on(secs(120)).await?;
            trial.within("every partition acknowledges after the disk is back", back.elapsed(), HEAL);
            trial.within("all replicas in sync after", back.elapsed() + ground.heals(HEAL).await?, HEAL);
            ground.finish(trial, secs(90)).await.map(drop)
        })
        .await
    })
}

const WRITTEN_AHEAD: Fault = Fault {
    number: "14a",
    fault: "a bit flips in a broker's write-ahead log, and it starts again",
    injected: "one bit of an acknowledged record, in the file; SIGKILL",
    promised: "never served, never spread: safe; it says why it is not ready; the others go on ≤ 10 s; with its volume replaced, as operations.md \
               says, it is in sync ≤ 60 s",
};

#[test]
fn f14_d5_a_bit_flips_in_a_write_ahead_log() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&WRITTEN_AHEAD, async |trial| {
            let ground = Ground::start(lab, "flip", &Setting::default()).await?;
            let (broker, partition) = ground.leader().await?;
            let (pod, claim) = (ground.pod(broker), format!("data-main-{broker}"));
            // The first record that the partition's writer has sent.
            let bytes = value(partition as u64, 100);
            let place = find(&pod.volume(&claim)?, &|name| is(name, "log"), &bytes)?;
            let begin = Instant::now();
            flip(&taffrail_e2e::damage::Place { at: place.at + 50, ..place })?;
            pod.kill()?;
            ground.goes_on(secs(60)).await?;
            trial.within("every partition acknowledges after", begin.elapsed(), FAILOVER);
            until("it says that its data is damaged", PATIENCE, async || {
                let (status, said) = taffrail_e2e::process::http_get((pod.address()?, 9095).into(), "/readyz")?;
                Ok((status != 200 && said.contains("damaged")).then_some(()))
            })
            .await?;
            trial.saw("it says that its data is damaged, and is not ready");

            ground.namespace().kubectl(&["delete", "pvc", &claim, "--wait=false"])?.ok()?;
            ground.namespace().kubectl(&["delete", "pod", pod.name()])?.ok()?;
            let replaced = Instant::now();
            ground.heals(secs(120)).await?;
            trial.within("all replicas in sync after its volume is replaced", replaced.elapsed(), HEAL);
            ground.finish(trial, FAILOVER).await.map(drop)
        })
        .await
    })
}

/// Whether a file has this extension.
fn is(name: &str, extension: &str) -> bool {
    std::path::Path::new(name).extension().is_some_and(|found| found == extension)
}

const TABLE: Fault = Fault {
    number: "14b",
    fault: "a bit flips in a table of the leader, and a reader comes there",
    injected: "one bit of an acknowledged record, in the file, and SIGKILL, so that nothing of it is in memory",
    promised: "never served and never skipped; the leader steps down: the reader gets the record from another ≤ 60 s; its replica begins \
               anew and is in sync ≤ 60 s",
};

/// More than a storage epoch, so that the beginning is in a table.
const BLOBS: u64 = 90;

#[test]
fn f14_d5_a_bit_flips_in_a_table_of_the_leader() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&TABLE, async |trial| {
            let ground = Ground::start(lab, "table", &Setting::default()).await?;
            ground.add_topic("blobs", 1, "")?;
            let load = Load::to("blobs").padding((1 << 20) - 1024).apart(1);
            let blobs = Writers::start(ground.client(), &load, 0)?;
            blobs.wait_for(BLOBS).await?;
            let blobs = blobs.stop().await?;
            let leader = ground.states_of("blobs").await?[0].leader.context("nobody leads")?;
            let (pod, bytes) = (ground.pod(leader), value(1, 200));
            let volume = pod.volume(&format!("data-main-{leader}"))?;
            let table = |name: &str| is(name, "sst");
            let place =
                until("the table is written", PATIENCE, async || Ok(Some(find(&volume, &table, &bytes)?))).await?;
            flip(&taffrail_e2e::damage::Place { at: place.at + 100, ..place })?;
            pod.kill()?;
            let begin = Instant::now();
            let leads = async || Ok((ground.states_of("blobs").await?[0].leader == Some(leader)).then_some(()));
            until("it leads again", secs(100), leads).await?;
            let endpoint = format!("http://{}:9094", pod.address()?);
            // Before it serves again, whoever answers is not it.
            let answer = until("it answers", PATIENCE, async || {
                let answer = stubs::read_at(&endpoint, "blobs", 1).await;
                let definite = !matches!(&answer, Err(error) if error.reason() == Reason::Unspecified);
                Ok(definite.then_some(answer))
            })
            .await?;
            trial.saw(match &answer {
                Ok(records) => format!("the damaged leader gives {} records", records.len()),
                Err(error) => format!("the damaged leader says {:?}", error.reason()),
            });
            let read = timeout(secs(60), read_all(ground.client(), "blobs")).await;
            trial.saw(format!("after {} s", begin.elapsed().as_secs()));
            match read {
                Ok(Ok(seen)) => {
                    let wrong = blobs.check(&seen, &starts(ground.client(), "blobs").await?);
                    trial.must(wrong.is_empty(), format!("{} violations, such as {:?}", wrong.len(), wrong.first()));
                }
                Ok(Err(error)) => trial.must(false, format!("the reader is told {error:?}; the leader stays")),
                Err(_) => trial.must(false, "the reader gets nothing within 60 s; the leader stays"),
            }
            let read = Instant::now();
            until("the damaged replica is in sync", PATIENCE, async || {
                Ok((ground.states_of("blobs").await?[0].isr.len() == BROKERS as usize).then_some(()))
            })
            .await?;
            trial.within("all replicas in sync after", read.elapsed(), HEAL);
            ground.finish(trial, FAILOVER).await.map(drop)
        })
        .await
    })
}
