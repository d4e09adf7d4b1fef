//! Brokers that die, sleep and lose their volumes under a topic of three replicas, two of which must have a record: what was
//! acknowledged stays, once and in order, and producers go on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use taffrail_client::{Client, Position, RequestOutcome};
use taffrail_e2e::group::{Diary, Member, MemberOptions, judge};
use taffrail_e2e::history::{History, LOAD, Told, value};
use taffrail_e2e::kubernetes::members::Members;
use taffrail_e2e::stubs;
use taffrail_e2e::writers::{Load, Writers, check};

use super::groups::{ends, group, wait_read};
use super::numbers;

const PARTITIONS: i32 = 4;

/// Writers of a load.
const WRITERS: u64 = 2;

/// Acknowledgements of each partition that show that it goes on: more than are in flight when a broker dies.
const ENOUGH: u64 = 40;

/// How long a partition may acknowledge nothing, whatever happens to one broker.
const FAILOVER: Duration = Duration::from_secs(10);

/// How long it may take until everything is served again.
const PATIENCE: Duration = Duration::from_secs(90);

/// Three brokers, and writers at work on a topic of three replicas.
struct Ground {
    members: Members,
    topic: String,
    client: Client,
    writers: Writers,
}

impl Ground {
    async fn start() -> Result<Self> {
        let members = tokio::task::spawn_blocking(|| Members::start(3)).await??;
        members.apply_topic("flights", PARTITIONS, ", replicationFactor: 3, config: {minInSyncReplicas: 2}")?;
        members.wait_topic("flights")?;
        let topic = members.topic_id("flights")?;
        members.wait_in_sync(&topic, 3)?;
        let client = Client::connect(&*members.bootstrap())?;
        let load = Load::to("flights").padding(100).pause(Duration::from_millis(2));
        let writers = Writers::start(&client, &load, 0)?;
        writers.wait_for_each(PARTITIONS, ENOUGH, PATIENCE).await.with_context(|| members.dump())?;
        Ok(Self { members, topic, client, writers })
    }

    /// The leader of a partition.
    fn leader(&self, partition: usize) -> Result<usize> {
        let leaders = self.members.leaders(&self.topic)?;
        leaders.get(partition).copied().flatten().with_context(|| format!("nobody leads {partition}: {leaders:?}"))
    }

    /// Every partition goes on to acknowledge.
    async fn goes_on(&self, what: &str, patience: Duration) -> Result<()> {
        let waited = self.writers.wait_for_each(PARTITIONS, ENOUGH, patience).await;
        let taken = waited.with_context(|| format!("{what}\n{}", self.members.dump()))?;
        eprintln!("{what}: every partition goes on after {taken:?}");
        Ok(())
    }

    /// Nobody but these brokers leads a partition.
    fn is_led_by(&self, brokers: &[usize]) -> Result<()> {
        let leaders = self.members.leaders(&self.topic)?;
        let right = leaders.iter().all(|leader| leader.is_some_and(|leader| brokers.contains(&leader)));
        ensure!(right, "led by {leaders:?}, not by {brokers:?}");
        Ok(())
    }

    fn wait_in_sync(&self) -> Result<()> {
        self.members.wait_in_sync(&self.topic, 3)
    }

    /// Stops the writers: all that they sent was acknowledged, and is there, once and in order.
    async fn finish(self) -> Result<()> {
        let pause = self.writers.longest_pause();
        let history = self.writers.stop().await?;
        eprintln!("{} records acknowledged, longest pause of a partition {pause:?}", history.acked());
        ensure!(history.acked() == history.len(), "{} of {} are acknowledged", history.acked(), history.len());
        check(&self.client, "flights", &history).await.with_context(|| self.members.dump())?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_a_leader_that_is_killed_is_replaced_and_catches_up_when_it_comes_back() -> Result<()> {
    let mut ground = Ground::start().await?;
    let leader = ground.leader(0)?;
    let options = ground.members.kill(leader)?;
    ground.goes_on("a leader was killed", FAILOVER).await?;
    let others: Vec<_> = (0..3).filter(|broker| *broker != leader).collect();
    ground.is_led_by(&others)?;
    ground.members.restart(leader, &options)?;
    ground.wait_in_sync()?;
    ground.goes_on("it has caught up", PATIENCE).await?;
    ground.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn i9_a_leader_that_stops_hands_over_first_and_no_ack_fails() -> Result<()> {
    let mut ground = Ground::start().await?;
    let leader = ground.leader(0)?;
    let options = ground.members.stop(leader)?;
    // It has ended only now: whatever it led must be another's already.
    let others: Vec<_> = (0..3).filter(|broker| *broker != leader).collect();
    ground.is_led_by(&others)?;
    ground.goes_on("a leader was stopped", FAILOVER).await?;
    ground.members.restart(leader, &options)?;
    ground.wait_in_sync()?;
    ground.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn l1_with_one_of_three_left_nothing_is_acknowledged_and_what_was_stays_readable() -> Result<()> {
    let mut ground = Ground::start().await?;
    let left = ground.leader(0)?;
    let killed: Vec<_> = (0..3).filter(|broker| *broker != left).collect();
    let mut options = vec![];
    for broker in killed {
        options.push((broker, ground.members.kill(broker)?));
    }
    let single = single_writes_until_refused(&mut ground.members, left).await?;
    let acked = ground.writers.acked();
    let mut reader = ground.client.consumer().topic("flights").from(Position::Earliest).build().await?;
    for read in 0..ENOUGH {
        let next = tokio::time::timeout(PATIENCE, reader.next()).await;
        next.with_context(|| format!("{read} read\n{}", ground.members.dump()))?.context("the reader ended")??;
    }
    drop(reader);
    ensure!(ground.writers.acked() == acked, "{} were acknowledged by one broker", ground.writers.acked() - acked);

    ground.members.restart_all(&options)?;
    ground.wait_in_sync()?;
    ground.goes_on("all are back", PATIENCE).await?;
    let mut history = ground.writers.stop().await?;
    ensure!(history.acked() == history.len(), "{} of {} are acknowledged", history.acked(), history.len());
    history.extend(single);
    check(&ground.client, "flights", &history).await?;
    Ok(())
}

/// Writes one record after the other to the leader of partition 0 until it refuses one because too few replicas are in sync;
/// what was told of each. Those before have an unknown outcome, the refused one is never stored.
async fn single_writes_until_refused(members: &mut Members, leader: usize) -> Result<History> {
    let (endpoint, begin, mut told) = (members.broker(leader)?.endpoint(), Instant::now(), vec![]);
    for n in 0.. {
        let id = LOAD + n * WRITERS;
        let record = value(id, 0);
        let answer = tokio::time::timeout(Duration::from_secs(3), stubs::produce(&endpoint, "flights", &record)).await;
        let refusal = answer.ok().and_then(Result::err);
        let reason = refusal.as_ref().map(|error| error.reason().as_str_name());
        if reason == Some("REASON_NOT_ENOUGH_REPLICAS") {
            let outcome = refusal.map(|error| error.outcome());
            ensure!(outcome == Some(RequestOutcome::NotApplied), "a refusal is definite, not {outcome:?}");
            told.push((id, Told::Refused));
            break;
        }
        told.push((id, Told::Unknown));
        ensure!(begin.elapsed() < PATIENCE, "not refused but {reason:?}\n{}", members.dump());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Answers that were under way have arrived.
    tokio::time::sleep(Duration::from_millis(300)).await;
    Ok(History::by_writers(told, WRITERS))
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_all_brokers_killed_at_once_lose_nothing_on_a_machine_that_stays_up() -> Result<()> {
    let mut ground = Ground::start().await?;
    for broker in 0..3 {
        ground.members.signal(broker, Signal::KILL)?;
    }
    let options: Vec<_> = (0..3).map(|broker| Ok((broker, ground.members.kill(broker)?))).collect::<Result<_>>()?;
    ground.members.restart_all(&options)?;
    ground.goes_on("all brokers were killed", PATIENCE).await?;
    ground.wait_in_sync()?;
    let unclean = ground.members.partitions(&ground.topic)?;
    ensure!(unclean.iter().all(|partition| partition["recovering"] != true), "nothing may be lost: {unclean:?}");
    ground.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn e6_a_leader_that_sleeps_beyond_its_session_is_replaced_and_acknowledges_nothing_when_it_wakes() -> Result<()> {
    let ground = Ground::start().await?;
    let sleeper = ground.leader(0)?;
    ground.members.signal(sleeper, Signal::STOP)?;
    let went_on = ground.goes_on("a leader sleeps", FAILOVER).await;
    let others: Vec<_> = (0..3).filter(|broker| *broker != sleeper).collect();
    let replaced = went_on.and_then(|()| ground.is_led_by(&others));
    ground.members.signal(sleeper, Signal::CONT)?;
    replaced?;
    // What it was asked before it fell asleep it may answer now: nothing that the others have not.
    ground.wait_in_sync()?;
    ground.goes_on("it is awake", PATIENCE).await?;
    ground.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn l6_a_replica_whose_volume_is_lost_is_rebuilt_and_can_lead() -> Result<()> {
    let mut ground = Ground::start().await?;
    let lost = (ground.leader(0)? + 1) % 3;
    let options = ground.members.kill(lost)?;
    std::fs::remove_dir_all(&options.data_dir)?;
    ground.members.restart(lost, &options)?;
    ground.wait_in_sync()?;
    ground.goes_on("a volume was lost", PATIENCE).await?;

    // Once the leader stops, the first of the others leads: where that is the one that was rebuilt, it has everything.
    let partitions = ground.members.partitions(&ground.topic)?;
    let heir = |partition: &serde_json::Value| {
        let leader = partition["leader"].as_u64()?;
        let others = partition["replicas"].as_array()?.iter().filter_map(serde_json::Value::as_u64);
        let first = others.into_iter().find(|broker| *broker != leader)?;
        (first == lost as u64).then_some(usize::try_from(leader).ok()?)
    };
    let leader = partitions.iter().find_map(heir).context("no partition would be the rebuilt replica's")?;
    let options = ground.members.stop(leader)?;
    let leads = ground.members.leaders(&ground.topic)?.contains(&Some(lost));
    ensure!(leads, "the rebuilt replica leads nothing: {partitions:?}");
    ground.goes_on("the rebuilt replica leads", FAILOVER).await?;
    ground.members.restart(leader, &options)?;
    ground.finish().await
}

#[test]
fn c2_a_group_goes_on_when_its_coordinator_dies_and_stays_away() -> Result<()> {
    let mut members = Members::start(3)?;
    members.apply_topic("orders", 6, ", replicationFactor: 3, config: {minInSyncReplicas: 2}")?;
    members.wait_topic("orders")?;
    members.wait_in_sync(&members.topic_id("orders")?, 3)?;
    let dir = tempfile::tempdir()?;
    let bootstrap = members.bootstrap();
    let start = |n: usize| MemberOptions::new(&bootstrap, "g", "orders").start(dir.path(), &format!("m{n}"));
    let consumers: Vec<Member> = (0..2).map(start).collect::<Result<_>>()?;
    for consumer in &consumers {
        consumer.wait(PATIENCE, |diary| diary.owned().len() == 3).with_context(|| members.dump())?;
    }
    members.cli(0, "produce orders", &numbers(0..1_000).join("\n"))?.ok()?;
    wait_read(&members, 0, 1_000)?;
    let first = ends(&members, 0)?;

    let coordinator = group(&members, 0)?["coordinator"].as_u64().context("coordinator")?;
    let coordinator = usize::try_from(coordinator)?;
    members.kill(coordinator)?;
    let other = (coordinator + 1) % 3;
    members.cli(other, "produce orders", &numbers(1_000..2_000).join("\n"))?.ok()?;
    wait_read(&members, other, 2_000)?;
    let diaries: Vec<Diary> = consumers.into_iter().map(|c| c.end(Signal::TERM)).collect::<Result<_>>()?;
    let verdict = judge(&diaries, &ends(&members, other)?)?;
    ensure!(verdict.missing.is_empty(), "never processed: {:?}", verdict.missing);
    let again = verdict.again.iter().filter(|(partition, offset)| first.get(partition).is_some_and(|end| offset < end));
    ensure!(again.count() == 0, "committed before the kill and processed again: {:?}", verdict.again);
    Ok(())
}
