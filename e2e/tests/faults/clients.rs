//! Clients that sleep longer than anybody waits for them: 26.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{ChildStdin, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use taffrail_e2e::cli::cli;
use taffrail_e2e::faults::all;
use taffrail_e2e::faults::ground::{BROKERS, Ground, IMAGES, PARTITIONS, Setting, TOPIC};
use taffrail_e2e::faults::trial::{Fault, Trial};
use taffrail_e2e::group::{Diary, Entry, Member, MemberOptions};
use taffrail_e2e::kubernetes::lab::{self, PATIENCE, until};
use taffrail_e2e::process::{Process, taffrail};
use tokio::time::sleep;

use super::{FAILOVER, HEAL, secs};

const PRODUCER: Fault = Fault {
    number: "26a",
    fault: "a producer sleeps with batches under way, and wakes when another leads",
    injected: "SIGSTOP of `taffrail produce`, 15 s; meanwhile SIGKILL of a broker that leads, twice",
    promised: "every line is stored once, in order",
};

/// Lines that are handed over before and after.
const LINES: usize = 3_000;

#[test]
fn f26_p1_a_producer_sleeps_and_wakes() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&PRODUCER, async |trial| {
            let ground = Ground::start(lab, "zombie", &Setting::default()).await?;
            ground.add_topic("letters", 1, "")?;
            let endpoints = endpoints(&ground);
            let mut command = taffrail(&endpoints)?;
            command.args(["produce", "letters"]).stdin(Stdio::piped()).stdout(Stdio::null());
            let mut producer = Process(command.spawn()?);
            let mut input = producer.0.stdin.take().context("standard input")?;
            write(&mut input, 0..LINES)?;
            producer.signal(Signal::STOP)?;
            let leader = ground.states_of("letters").await?[0].leader.context("nobody leads")?;
            super::processes::kill_for_long(&ground.pod(leader)).await?;
            sleep(secs(15)).await;
            producer.signal(Signal::CONT)?;
            write(&mut input, LINES..2 * LINES)?;
            drop(input);
            let ended = producer.wait(secs(60))?;
            trial.must(ended.success(), format!("the producer ended with {ended}"));
            ground.heals(HEAL).await?;
            let read = cli(&endpoints, "consume letters", "")?.ok()?;
            let expected: Vec<String> = (0..2 * LINES).map(|line| line.to_string()).collect();
            let found: Vec<&str> = read.lines().collect();
            trial.saw(format!("{} lines handed over, {} stored", expected.len(), found.len()));
            trial.must(found == expected, "lines are missing, double or out of order");
            ground.finish(trial, FAILOVER).await.map(drop)
        })
        .await
    })
}

fn write(input: &mut ChildStdin, mut lines: std::ops::Range<usize>) -> Result<()> {
    lines.try_for_each(|line| writeln!(input, "{line}")).context("hand lines to the producer")
}

/// All brokers, for programs.
fn endpoints(ground: &Ground<'_>) -> String {
    (0..BROKERS).map(|broker| ground.namespace().broker(broker)).collect::<Vec<_>>().join(",")
}

const CONSUMER: Fault = Fault {
    number: "26b",
    fault: "a member of a group sleeps beyond its session and wakes",
    injected: "SIGSTOP of one of two members, until the other has all partitions",
    promised: "the other takes over ≤ 10 s (session 2 s); awake, it is told so, joins again, and every record is processed",
};

#[test]
fn f26_c5_a_member_sleeps_and_wakes() -> Result<()> {
    if !all() {
        return Ok(());
    }
    lab::test(IMAGES, async |lab| {
        Trial::run(&CONSUMER, async |trial| {
            let ground = Ground::start(lab, "member", &Setting::default()).await?;
            let (endpoints, dir) = (endpoints(&ground), tempfile::tempdir()?);
            let options = MemberOptions {
                pace: Duration::from_micros(200),
                session_timeout: Duration::from_secs(2),
                ..MemberOptions::new(&endpoints, "g", TOPIC)
            };
            let members: Vec<Member> =
                ["a", "b"].iter().map(|name| options.start(dir.path(), name)).collect::<Result<_>>()?;
            for member in &members {
                member.wait(PATIENCE, |diary| diary.owned().len() == PARTITIONS as usize / 2)?;
            }
            members[0].wait(PATIENCE, |diary| diary.records().count() > 500)?;
            let begin = std::time::Instant::now();
            members[0].signal(Signal::STOP)?;
            let taken = members[1].wait(PATIENCE, |diary| diary.owned().len() == PARTITIONS as usize);
            members[0].signal(Signal::CONT)?;
            taken?;
            trial.within("the other has all partitions after", begin.elapsed(), FAILOVER);
            let lost = |diary: &Diary| diary.entries.iter().any(|entry| matches!(entry, Entry::Lost(..)));
            // Whether it had something to commit is chance: that such a commit is refused is checked in `groups.rs`.
            members[0].wait(PATIENCE, lost).context("it is told that it has lost its partitions")?;
            members[0].wait(PATIENCE, |diary| !diary.owned().is_empty()).context("it joins again")?;
            let written = ground.finish(trial, FAILOVER).await?;
            until("every record is processed", PATIENCE, async || {
                let diaries = members.iter().map(Member::diary).collect::<Result<Vec<_>>>()?;
                let processed: BTreeSet<_> = diaries.iter().flat_map(Diary::records).collect();
                Ok((processed.len() == written).then_some(()))
            })
            .await
        })
        .await
    })
}
