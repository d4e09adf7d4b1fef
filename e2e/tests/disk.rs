//! Disks that lose power, fill up and fail.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use taffrail_client::{Client, NewTopic, Reason};
use taffrail_e2e::history::{History, Told, Violation, value};
use taffrail_e2e::loop_volume::{LoopVolume, root};
use taffrail_e2e::process::{Broker, BrokerOptions};
use taffrail_e2e::stubs::{produce, read_at, refusal_of_reader};
use taffrail_e2e::writers::{Load, Writers, check, read_all, starts};
use tokio::time::sleep;

/// A broker with its data on the volume and its log beside it.
fn options(volume: &LoopVolume) -> Result<BrokerOptions> {
    let mut options = BrokerOptions::new(volume.outside())?;
    options.data_dir = volume.path().join("data");
    Ok(options)
}

/// As the broker would find itself after the machine was switched off and on: the kernel has another boot id. Only the
/// broker sees it, in a mount namespace of its own.
fn after_reboot(volume: &LoopVolume, options: BrokerOptions) -> Result<BrokerOptions> {
    let file = volume.outside().join("boot_id");
    std::fs::write(&file, format!("{}\n", uuid::Uuid::new_v4()))?;
    let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
    Ok(options.under(["unshare", "--mount", "sh", "-c", script]).under([file.display().to_string()]))
}

async fn create(client: &Client, name: &str, config: &[(&str, &str)]) -> Result<()> {
    let topic = config.iter().fold(NewTopic::new(name).partitions(1), |topic, (key, value)| topic.config(*key, *value));
    client.admin().create_topic(topic, false).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn d4_d7_a_power_failure_keeps_what_was_acknowledged_as_disk_and_readers_ahead_of_the_rest_are_told() -> Result<()>
{
    if !root()? {
        return Ok(());
    }
    let volume = LoopVolume::new(512)?;
    let options = options(&volume)?;
    let broker = options.start()?;
    let client = Client::connect(broker.endpoint().as_str())?;
    create(&client, "ledger", &[("durability", "disk")]).await?;
    create(&client, "clicks", &[]).await?;
    let load = |topic| Load::to(topic).padding(500).patience(Duration::from_secs(3));
    let ledger = Writers::start(&client, &load("ledger"), 0)?;
    let clicks = Writers::start(&client, &load("clicks"), 1 << 32)?;
    ledger.wait_for(2_000).await?;
    let ledger = ledger.stop().await?;
    // From here on nothing is synced: `clicks` may lose what follows, and with writes this few the kernel keeps them all back.
    clicks.wait_for(500).await?;
    volume.shut_down()?;
    let clicks = clicks.stop().await?;
    broker.kill()?;
    volume.remount()?;

    let broker = after_reboot(&volume, options)?.start()?;
    check(&client, "ledger", &ledger).await.context("durability disk")?;
    let end = check_prefix(&client, "clicks", &clicks).await?;
    ensure!((end as usize) < clicks.acked(), "nothing was lost: this test proves nothing");
    for topic in client.metadata(&["ledger", "clicks"]).await?.topics {
        assert_eq!(topic.partitions[0].leader_epoch, 1, "{}", topic.name);
    }
    let refusal =
        refusal_of_reader(&broker.endpoint(), "clicks", end + 10, 0).await.context("a reader ahead is served")?;
    assert_eq!(refusal.reason(), Reason::LogTruncated, "{refusal}");
    assert_eq!(refusal.log_end_offset(), Some(end), "where histories part");
    // New records take the lost offsets under a new epoch; the reader is told all the same.
    assert_eq!(produce(&broker.endpoint(), "clicks", b"new").await?, end);
    let refusal = refusal_of_reader(&broker.endpoint(), "clicks", end + 1, 0).await.context("it sees other records")?;
    assert_eq!(refusal.reason(), Reason::LogTruncated, "{refusal}");
    Ok(())
}

/// What is there is right and has no hole; acknowledged records may be missing, but only beyond the end, which is given.
async fn check_prefix(client: &Client, topic: &str, history: &History) -> Result<i64> {
    let seen = read_all(client, topic).await?;
    let end = seen.get(&0).map_or(0, |records| records.len() as i64);
    let lost_at_the_end = |violation: &Violation| match violation {
        Violation::Lost { told: Told::Acked { offset, .. }, .. } => offset.is_none_or(|offset| offset >= end),
        _ => false,
    };
    let violations = history.check(&seen, &starts(client, topic).await?);
    let wrong: Vec<_> = violations.iter().filter(|violation| !lost_at_the_end(violation)).take(5).collect();
    ensure!(wrong.is_empty(), "{topic}: {wrong:#?}");
    Ok(end)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_disk_refuses_writes_before_it_is_full_serves_reads_and_recovers_by_itself() -> Result<()> {
    if !root()? {
        return Ok(());
    }
    let volume = LoopVolume::new(300)?;
    let broker = options(&volume)?.start()?;
    let endpoint = broker.endpoint();
    let client = Client::connect(endpoint.as_str())?;
    create(&client, "old", &[]).await?;
    create(&client, "new", &[]).await?;
    let (mut stored, refusal) = fill(&endpoint, "old").await;
    assert_eq!(refusal.reason(), Reason::DiskFull, "{refusal}");
    assert!(refusal.retriable() && refusal.retry_after().is_some(), "{refusal:?}");
    let free = volume.free()?;
    assert!(free > 4 << 20, "only {free} bytes were kept in reserve");
    assert!(stored > 2 * 100, "refused after {} MiB of 300", stored / 2);
    assert_eq!(produce(&endpoint, "new", b"x").await.map_err(|e| e.reason()), Err(Reason::DiskFull));
    assert_eq!(read_at(&endpoint, "old", stored - 1).await?[0].offset, stored - 1, "reads go on");
    assert!((broker.metric("taffrail_storage_disk_full")? - 1.0).abs() < f64::EPSILON);

    // Deletes go on, and they make room.
    client.admin().delete_records("old", 0, stored / 2).await?;
    let begin = Instant::now();
    stored = loop {
        match produce(&endpoint, "old", b"again").await {
            Ok(offset) => break offset,
            Err(error) => assert_eq!(error.reason(), Reason::DiskFull, "{error}"),
        }
        ensure!(begin.elapsed() < Duration::from_mins(3), "it did not recover\n{}", broker.log_tail());
        sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(read_at(&endpoint, "old", stored).await?[0].value.as_deref(), Some(&b"again"[..]));
    produce(&endpoint, "new", b"x").await?;
    Ok(())
}

/// Appends records of half a MiB until one is refused: how many were stored, and why no more.
async fn fill(endpoint: &str, topic: &str) -> (i64, taffrail_client::Error) {
    let mut stored = 0;
    loop {
        match produce(endpoint, topic, &value(stored as u64, 1 << 19)).await {
            Ok(_) => stored += 1,
            Err(refusal) => return (stored, refusal),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_failing_disk_ends_writing_with_a_reason_and_nothing_is_acknowledged_that_is_not_there() -> Result<()> {
    if !root()? {
        return Ok(());
    }
    let volume = LoopVolume::new(256)?;
    let options = options(&volume)?;
    let mut broker = options.start()?;
    let endpoint = broker.endpoint();
    let client = Client::connect(endpoint.as_str())?;
    create(&client, "events", &[("durability", "disk")]).await?;
    let load = Load::to("events").patience(Duration::from_secs(3));
    let writers = Writers::start(&client, &load, 0)?;
    writers.wait_for(500).await?;
    // Nothing is in flight at the moment of the failure: ext4 itself answers an fdatasync that is under way then with a
    // success, and loses the bytes (seen with a bare write and fdatasync on preallocated blocks: 3 of 25).
    let mut history = writers.stop().await?;
    volume.abort()?;
    let writers = Writers::start(&client, &load, 1 << 32)?;
    let (_, reason) = broker.wait_readiness(&|status, _| status != 200)?;
    assert!(reason.contains("takes no more writes"), "{reason}");
    let refused = writers.stop().await?;
    assert_eq!(refused.acked(), 0, "acknowledged by a disk that takes nothing");
    history.extend(refused);
    let refusal = produce(&endpoint, "events", b"x").await.err().context("a write to a dead disk was acknowledged")?;
    assert_eq!(refusal.reason(), Reason::StorageFailed, "{refusal}");
    let reason = client.admin().describe_broker().await?.read_only_reason;
    assert!(!reason.is_empty(), "the broker does not say why it takes no writes");
    assert_eq!(read_at(&endpoint, "events", 0).await?[0].offset, 0, "reads go on");
    check_alive(&mut broker)?;

    broker.kill()?;
    volume.remount()?;
    let _broker = options.start()?;
    check(&client, "events", &history).await?;
    Ok(())
}

fn check_alive(broker: &mut Broker) -> Result<()> {
    let ended = broker.ended()?;
    ensure!(ended.is_none(), "the broker ended with {ended:?}: nobody can read from it, or ask it why");
    Ok(())
}
