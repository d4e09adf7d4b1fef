//! The second part of the demo: a group of three processes shares the flights, one is killed (SIGKILL) in mid-stream, and the
//! diaries prove what the delivery mode promises.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use taffrail_client::{Client, GroupDescription};
use taffrail_e2e::group::{Diary, Member, MemberOptions, Place, Verdict, judge};

use crate::{PATIENCE, TOPIC, step};

/// Killed when it has processed so many.
const KILLED_AFTER: usize = 2_000;

/// A member that writes nothing for so long has nothing in hand.
const QUIET: Duration = Duration::from_millis(200);

/// Runs a group in one mode; `ends` is the end of each partition.
pub(crate) fn share(endpoint: &str, dir: &Path, at_most_once: bool, ends: &BTreeMap<i32, i64>) -> Result<()> {
    let mode = if at_most_once { "at-most-once" } else { "at-least-once" };
    let group = &format!("flights-{mode}");
    let session_timeout = Duration::from_secs(2);
    let options = MemberOptions { at_most_once, session_timeout, ..MemberOptions::new(endpoint, group, TOPIC) };
    let mut members =
        ["anna", "ben", "carla"].map(|name| options.start(dir, name)).into_iter().collect::<Result<Vec<_>>>()?;
    let begin = Instant::now();
    let victim = members.remove(1);
    let diary = victim.wait(PATIENCE, |diary| diary.records().count() >= KILLED_AFTER)?;
    let name = victim.name().to_owned();
    step(&format!("group {group}: three processes share {} partitions; {name} has {:?}", ends.len(), diary.owned()));
    let killed = victim.end(Signal::KILL)?;
    step(&format!("killed {name} (SIGKILL) after it had processed {} flights", killed.records().count()));
    let committed = wait_until_read(endpoint, group, ends)?;
    let diaries = finish(members, killed)?;
    let verdict = judge(&diaries, ends)?;
    let late = first_after(&diaries);
    prove(at_most_once, &verdict, &diaries)?;
    print(mode, &verdict, &diaries);
    println!(
        "  hand-over                       the others had {name}'s partitions {late:.1} s after its last flight (session timeout 2 s)"
    );
    println!(
        "  committed                       {committed} of {committed}, {:.1} s in all\n",
        begin.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Waits until the group has committed everything, and tells how much.
fn wait_until_read(endpoint: &str, group: &str, ends: &BTreeMap<i32, i64>) -> Result<i64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let admin = runtime.block_on(async { Client::connect(endpoint).map(|client| client.admin()) })?;
    let begin = Instant::now();
    loop {
        let found: GroupDescription = runtime.block_on(admin.describe_group(group))?;
        let committed: BTreeMap<i32, i64> =
            found.partitions.iter().filter_map(|p| Some((p.partition, p.committed?))).collect();
        if committed == *ends {
            return Ok(committed.values().sum());
        }
        ensure!(begin.elapsed() < PATIENCE, "committed {committed:?} of {ends:?} after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Stops the members in order, once they have nothing in hand; the diaries, with that of the killed one last.
fn finish(members: Vec<Member>, killed: Diary) -> Result<Vec<Diary>> {
    for member in &members {
        let mut written = 0;
        while written != member.diary()?.entries.len() {
            written = member.diary()?.entries.len();
            std::thread::sleep(QUIET);
        }
    }
    let mut diaries = members.into_iter().map(|member| member.end(Signal::TERM)).collect::<Result<Vec<_>>>()?;
    diaries.push(killed);
    Ok(diaries)
}

/// Seconds from the last record of the killed member until another had all its partitions.
fn first_after(diaries: &[Diary]) -> f64 {
    let Some((killed, others)) = diaries.split_last() else { return 0.0 };
    let last = killed.last_record_at();
    let taken = others.iter().flat_map(|d| d.assigned_since(last));
    let at = taken.filter(|(_, p)| killed.owned().contains(p)).map(|(at, _)| at).max().unwrap_or(last);
    Duration::from_nanos(at - last).as_secs_f64()
}

fn prove(at_most_once: bool, verdict: &Verdict, diaries: &[Diary]) -> Result<()> {
    let killed = diaries.last().context("no diaries")?;
    let processed: BTreeSet<Place> = killed.records().collect();
    if at_most_once {
        ensure!(verdict.again.is_empty(), "at most once, but seen again: {:?}", verdict.again);
        for partition in killed.owned() {
            let lost: Vec<i64> = verdict.missing.iter().filter(|(p, _)| *p == partition).map(|(_, o)| *o).collect();
            let in_a_row = lost.windows(2).all(|pair| pair[1] == pair[0] + 1);
            ensure!(in_a_row, "what is missing of partition {partition} was not handed out at once: {lost:?}");
        }
        let owned = killed.owned();
        ensure!(
            verdict.missing.iter().all(|(partition, _)| owned.contains(partition)),
            "flights are missing that the killed member had not in hand: {:?}",
            verdict.missing
        );
    } else {
        ensure!(verdict.missing.is_empty(), "at least once, but missing: {:?}", verdict.missing);
        ensure!(verdict.again.is_subset(&processed), "seen again, but not by the killed member: {:?}", verdict.again);
    }
    Ok(())
}

fn print(mode: &str, verdict: &Verdict, diaries: &[Diary]) {
    let shares: Vec<String> =
        diaries.iter().zip(&verdict.processed).map(|(diary, count)| format!("{} {count}", diary.name)).collect();
    println!("\n  {mode:31} {}", shares.join(", "));
    println!("  one owner at a time             {} tenures of partitions, none of them overlap", verdict.tenures);
    println!("  lost with the killed process    {}", verdict.missing.len());
    println!("  seen again after the kill       {}", verdict.again.len());
}
