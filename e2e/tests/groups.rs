//! Consumer groups with real processes: members that are killed, stopped and restarted, brokers that are killed under them,
//! topics that go and grow, and the command line.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use taffrail_e2e::cli;
use taffrail_e2e::group::{Diary, Entry, Member, MemberOptions, Place, judge};
use taffrail_e2e::process::{Broker, BrokerOptions, Process, taffrail};

const PATIENCE: Duration = Duration::from_secs(90);
const FAILED: i32 = 1;
const NOT_FOUND: i32 = 3;

/// A broker with a topic `t`, and its command line.
struct World {
    broker: Option<Broker>,
    dir: tempfile::TempDir,
    partitions: i32,
    written: usize,
}

impl World {
    fn new(partitions: i32) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let broker = BrokerOptions::new(dir.path())?.start()?;
        let world = Self { broker: Some(broker), dir, partitions, written: 0 };
        world.ok(&format!("topic create t --partitions {partitions}"))?;
        Ok(world)
    }

    fn endpoint(&self) -> String {
        self.broker.as_ref().expect("the broker runs").endpoint()
    }

    fn ok(&self, arguments: &str) -> Result<String> {
        cli::cli(&self.endpoint(), arguments, "")?.ok().with_context(|| arguments.to_owned())
    }

    fn json(&self, arguments: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.ok(arguments)?)?)
    }

    fn fails(&self, arguments: &str, code: i32) -> Result<String> {
        cli::cli(&self.endpoint(), arguments, "")?.failed(code).with_context(|| arguments.to_owned())
    }

    /// Appends records, each under a key of its own.
    fn write(&mut self, records: usize) -> Result<()> {
        let line = |n: usize| format!("k{n}:v{n}\n");
        let lines: String = (self.written..self.written + records).map(line).collect();
        cli::cli(&self.endpoint(), "produce t --quiet --key-separator :", &lines)?.ok()?;
        self.written += records;
        Ok(())
    }

    /// The end of each partition.
    fn ends(&self) -> Result<BTreeMap<i32, i64>> {
        let offsets = self.json("offsets t -o json")?;
        let end = |o: &Value| Some((o["partition"].as_i64()? as i32, o["end"].as_i64()?));
        Ok(offsets.as_array().context("offsets")?.iter().filter_map(end).collect())
    }

    fn member(&self) -> MemberOptions {
        MemberOptions::new(&self.endpoint(), "g", "t")
    }

    fn members(&self, options: &MemberOptions, names: &[&str]) -> Result<Vec<Member>> {
        let members: Vec<_> = names.iter().map(|name| options.start(self.dir.path(), name)).collect::<Result<_>>()?;
        self.wait_for("the partitions are shared", || {
            let owned = members.iter().map(|m| Ok(m.diary()?.owned().len())).collect::<Result<Vec<_>>>()?;
            let all = owned.iter().all(|n| *n > 0) && owned.iter().sum::<usize>() == self.partitions as usize;
            Ok(all && self.json("group describe g -o json")?["state"] == "stable")
        })?;
        Ok(members)
    }

    fn wait_for(&self, what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
        let begin = Instant::now();
        while !is_so()? {
            if begin.elapsed() > PATIENCE {
                let group = cli::cli(&self.endpoint(), "group describe g", "")?;
                let log = self.broker.as_ref().map(Broker::log_tail).unwrap_or_default();
                anyhow::bail!("not within {PATIENCE:?}: {what}\n{}{}\n{log}", group.out, group.err);
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        Ok(())
    }

    /// Until the group has committed everything.
    fn wait_read(&self) -> Result<()> {
        self.wait_for("the group has read everything", || {
            let group = self.json("group describe g -o json")?;
            let partitions = group["partitions"].as_array().context("partitions")?;
            let read = partitions.iter().filter(|p| p["lag"] == 0 && p["committed"] == p["highWatermark"]).count();
            Ok(read >= self.ends()?.values().filter(|end| **end > 0).count())
        })
    }
}

fn end_all(members: Vec<Member>) -> Result<Vec<Diary>> {
    members.into_iter().map(|member| member.end(Signal::TERM)).collect()
}

#[test]
fn c6_a_member_that_is_killed_is_replaced_and_every_record_is_processed() -> Result<()> {
    let mut world = World::new(8)?;
    world.write(6_000)?;
    let mut members = world.members(&world.member(), &["a", "b", "c"])?;
    let killed = members.remove(1);
    killed.wait(PATIENCE, |diary| diary.records().count() > 200)?;
    let killed = killed.end(Signal::KILL)?;
    world.wait_read()?;
    let mut diaries = end_all(members)?;
    let seen: BTreeSet<_> = killed.records().collect();
    diaries.push(killed);
    let verdict = judge(&diaries, &world.ends()?)?;
    assert!(verdict.missing.is_empty(), "{verdict:?}");
    assert!(verdict.again.is_subset(&seen), "only what the killed member had in hand is seen again: {verdict:?}");
    Ok(())
}

#[test]
fn at_most_once_never_shows_a_record_twice_even_after_a_kill() -> Result<()> {
    let mut world = World::new(8)?;
    world.write(6_000)?;
    let options = MemberOptions { at_most_once: true, ..world.member() };
    let mut members = world.members(&options, &["a", "b", "c"])?;
    let killed = members.remove(0);
    killed.wait(PATIENCE, |diary| diary.records().count() > 200)?;
    let killed = killed.end(Signal::KILL)?;
    world.wait_read()?;
    std::thread::sleep(Duration::from_millis(500));
    let mut diaries = end_all(members)?;
    let owned = killed.owned();
    diaries.push(killed);
    let verdict = judge(&diaries, &world.ends()?)?;
    assert!(verdict.again.is_empty(), "{verdict:?}");
    assert!(verdict.missing.iter().all(|(partition, _)| owned.contains(partition)), "{verdict:?}");
    Ok(())
}

#[test]
fn a_member_that_leaves_moves_only_its_own_partitions() -> Result<()> {
    let mut world = World::new(8)?;
    let mut members = world.members(&world.member(), &["a", "b", "c", "d"])?;
    world.write(1_000)?;
    world.wait_read()?;
    let before: Vec<_> = members.iter().map(Member::diary).collect::<Result<_>>()?;
    let gone = members.remove(3).end(Signal::TERM)?;
    world.wait_for("its partitions are taken over", || {
        Ok(members.iter().map(|m| Ok(m.diary()?.owned().len())).sum::<Result<usize>>()? == 8)
    })?;
    for (member, before) in members.iter().zip(&before) {
        let after = member.diary()?;
        assert!(after.owned().is_superset(&before.owned()), "{} lost a partition", member.name());
        let lost = |e: &Entry| matches!(e, Entry::Revoked(..) | Entry::Lost(..));
        assert!(!after.entries[before.entries.len()..].iter().any(lost), "{}: {after:?}", member.name());
    }
    assert!(!gone.owned().is_empty());
    Ok(())
}

#[test]
fn a_broker_that_is_killed_under_a_group_moves_no_partition_and_loses_no_commit() -> Result<()> {
    let mut world = World::new(6)?;
    world.write(6_000)?;
    let options = MemberOptions { session_timeout: Duration::from_secs(20), ..world.member() };
    let members = world.members(&options, &["a", "b", "c"])?;
    members[0].wait(PATIENCE, |diary| diary.records().count() > 200)?;
    let moves = || members.iter().map(|m| Ok(m.diary()?.moves())).collect::<Result<Vec<_>>>();
    let before = moves()?;
    let broker = world.broker.take().context("a broker")?;
    world.broker = Some(broker.kill()?.start()?);
    world.wait_read()?;
    world.write(600)?;
    world.wait_read()?;
    assert_eq!(moves()?, before, "no partition moved");
    let verdict = judge(&end_all(members)?, &world.ends()?)?;
    assert!(verdict.missing.is_empty() && verdict.again.is_empty(), "{verdict:?}");
    Ok(())
}

#[test]
fn a_static_member_that_restarts_gets_its_partitions_back_and_nothing_else_moves() -> Result<()> {
    let mut world = World::new(6)?;
    world.write(600)?;
    let static_ = |name: &str| MemberOptions {
        instance: Some(name.to_owned()),
        session_timeout: Duration::from_secs(20),
        ..world.member()
    };
    let (dir, names) = (world.dir.path().to_owned(), ["a", "b", "c"]);
    let mut members: Vec<_> = names.iter().map(|name| static_(name).start(&dir, name)).collect::<Result<_>>()?;
    let owned = |members: &[Member]| members.iter().map(|m| Ok(m.diary()?.owned())).collect::<Result<Vec<_>>>();
    world.wait_for("the partitions are shared", || Ok(owned(&members)?.iter().all(|o| o.len() == 2)))?;
    world.wait_read()?;
    let before = owned(&members)?;
    let moves: Vec<_> = members.iter().map(|m| Ok(m.diary()?.moves())).collect::<Result<_>>()?;
    members.remove(2).end(Signal::TERM)?;
    let again = static_("c").start(&dir, "c-again")?;
    again.wait(PATIENCE, |diary| diary.owned() == before[2])?;
    world.write(600)?;
    world.wait_read()?;
    for (member, moves) in members.iter().zip(moves) {
        assert_eq!(member.diary()?.moves(), moves, "partitions of {} moved", member.name());
    }
    Ok(())
}

/// Stops a member while it has processed records that are not committed.
fn put_to_sleep_at_work(world: &World, member: &Member) -> Result<()> {
    let mut processed = 0;
    loop {
        processed += 500;
        member.wait(PATIENCE, |diary| diary.records().count() > processed)?;
        member.signal(Signal::STOP)?;
        // A commit that it had sent before is there by then.
        std::thread::sleep(Duration::from_millis(500));
        let group = world.json("group describe g -o json")?;
        let next = |p: &Value| Some((i32::try_from(p["partition"].as_i64()?).ok()?, p["committed"].as_i64()?));
        let next: BTreeMap<_, _> = group["partitions"].as_array().into_iter().flatten().filter_map(next).collect();
        let is_committed = |(partition, offset): Place| next.get(&partition).is_some_and(|next| offset < *next);
        if !member.diary()?.records().all(is_committed) {
            return Ok(());
        }
        member.signal(Signal::CONT)?;
    }
}

#[test]
fn c5_a_member_that_slept_beyond_its_session_is_fenced_commits_nothing_and_comes_back() -> Result<()> {
    let mut world = World::new(4)?;
    world.write(40_000)?;
    let options = MemberOptions { pace: Duration::from_micros(200), ..world.member() };
    let members = world.members(&options, &["a", "b"])?;
    put_to_sleep_at_work(&world, &members[0])?;
    let taken = members[1].wait(PATIENCE, |diary| diary.owned().len() == 4);
    members[0].signal(Signal::CONT)?;
    taken?;
    let woken = members[0].wait(PATIENCE, |diary| diary.entries.iter().any(|e| matches!(e, Entry::Lost(..))))?;
    assert!(woken.entries.iter().any(|e| matches!(e, Entry::Fenced(_))), "its commit was refused");
    members[0].wait(PATIENCE, |diary| !diary.owned().is_empty()).context("it joins again")?;
    world.wait_read()?;
    let records: BTreeSet<_> = end_all(members)?.iter().flat_map(Diary::records).collect();
    assert_eq!(records.len(), 40_000, "every record was processed");
    Ok(())
}

#[test]
fn a_topic_that_grows_is_read_with_its_new_partitions() -> Result<()> {
    let mut world = World::new(2)?;
    let members = world.members(&world.member(), &["a", "b"])?;
    world.ok("topic alter t --partitions 6")?;
    world.partitions = 6;
    world.write(2_000)?;
    world.wait_read()?;
    let diaries = end_all(members)?;
    let verdict = judge(&diaries, &world.ends()?)?;
    assert!(verdict.missing.is_empty() && verdict.again.is_empty(), "{verdict:?}");
    Ok(())
}

#[test]
fn a_topic_that_is_made_again_is_read_from_its_start() -> Result<()> {
    let mut world = World::new(2)?;
    world.write(500)?;
    let member = world.member().start(world.dir.path(), "a")?;
    member.wait(PATIENCE, |diary| diary.records().count() == 500)?;
    world.wait_read()?;
    world.ok("topic delete t")?;
    member.wait(PATIENCE, |diary| diary.owned().is_empty()).context("the deleted topic is let go")?;
    world.ok("topic create t --partitions 2")?;
    world.write(300)?;
    let all = member.wait(PATIENCE, |diary| diary.records().count() == 800)?;
    let again: BTreeSet<_> = all.records().skip(500).collect();
    let expected = world.ends()?.into_iter().flat_map(|(p, end)| (0..end).map(move |offset| (p, offset)));
    assert_eq!(again, expected.collect(), "the new topic's records, from offset 0");
    Ok(())
}

#[test]
fn the_command_line_reads_as_a_member_and_goes_on_where_the_group_stopped() -> Result<()> {
    let mut world = World::new(3)?;
    world.write(100)?;
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let first = lines(&world.ok("consume t --group g --limit 30")?);
    assert_eq!(first.len(), 30);
    let second = lines(&world.ok("consume t --group g")?);
    assert_eq!(second.len(), 70);
    assert!(first.is_disjoint(&second));
    assert_eq!(world.ok("consume t --group g")?, "");
    assert_eq!(world.ok("consume t --group other --commit at-most-once")?.lines().count(), 100);
    assert_eq!(world.ok("consume t --group late --reset latest")?, "");
    world.fails("consume nowhere --group g", NOT_FOUND)?;
    world.fails("consume t --group none --reset fail", NOT_FOUND)?;
    Ok(())
}

#[test]
fn groups_are_listed_described_reset_and_deleted_by_the_command_line() -> Result<()> {
    let mut world = World::new(2)?;
    world.write(100)?;
    world.ok("consume t --group g")?;
    world.write(20)?;
    let listed = world.json("group list -o json")?;
    assert_eq!((&listed[0]["group"], &listed[0]["state"]), (&"g".into(), &"empty".into()));
    assert!(world.ok("group list")?.starts_with("GROUP"));
    assert_eq!(world.ok("group list --state stable")?, "");
    assert_eq!(world.json("group describe g -o json")?["lag"], 20);
    assert!(world.ok("group describe g")?.contains("lag 20"));
    world.fails("group describe nobody", NOT_FOUND)?;

    let planned = world.json("group reset g --to earliest --dry-run -o json")?;
    assert!(planned.as_array().context("changes")?.iter().all(|c| c["after"] == 0 && c["before"] != 0), "{planned}");
    assert_eq!(world.json("group describe g -o json")?["lag"], 20, "a dry run changes nothing");
    world.ok("group reset g --to latest")?;
    assert_eq!(world.json("group describe g -o json")?["lag"], 0);
    world.ok("group reset g t:0 --shift-by -5")?;
    assert_eq!(world.json("group describe g -o json")?["lag"], 5);
    assert_eq!(world.ok("consume t --group g")?.lines().count(), 5);
    world.ok("group reset g t --to 1h")?;
    assert_eq!(world.ok("consume t --group g")?.lines().count(), 120);

    let member = world.member().start(world.dir.path(), "a")?;
    member.wait(PATIENCE, |diary| diary.owned().len() == 2)?;
    assert!(world.fails("group reset g --to earliest", FAILED)?.contains("member"));
    assert!(world.fails("group delete g", FAILED)?.contains("member"));
    world.ok("group reset g --to earliest --force")?;
    member.end(Signal::TERM)?;
    assert_eq!(world.ok("consume t --group g")?.lines().count(), 120, "the forced reset holds while nobody commits");
    world.ok("group delete g")?;
    world.fails("group delete g", NOT_FOUND)?;
    world.ok("group delete g --if-exists")?;
    Ok(())
}

#[test]
fn describe_watch_writes_a_line_each_time_with_the_lag() -> Result<()> {
    let mut world = World::new(1)?;
    world.write(10)?;
    world.ok("consume t --group g --limit 4")?;
    let mut command = taffrail(&world.endpoint())?;
    command.args(["group", "describe", "g", "--watch", "--every", "100ms"]);
    let out = world.dir.path().join("watch.txt");
    let mut watch = Process(command.stdout(std::fs::File::create(&out)?).spawn()?);
    let lines = || std::fs::read_to_string(&out);
    world.wait_for("two lines", || Ok(lines()?.lines().count() >= 2))?;
    world.ok("consume t --group g")?;
    world.wait_for("the lag is gone", || Ok(lines()?.contains("lag 0")))?;
    let status = watch.end(Signal::TERM)?;
    ensure!(status.success(), "{status}");
    let text = lines()?;
    assert!(text.lines().next().is_some_and(|line| line.ends_with("lag 6")), "{text}");
    assert!(!text.contains('\u{1b}'), "no terminal, no control sequences");
    Ok(())
}
