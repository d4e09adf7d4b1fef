//! Bits that flip on the disk: never served, never silently dropped, and told as precisely as can be known.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use taffrail_client::{Client, ErrorKind, NewTopic, Position, Reason};
use taffrail_e2e::cli::{self, Ended};
use taffrail_e2e::damage::{files, find, flip};
use taffrail_e2e::history::{id_of, value};
use taffrail_e2e::process::{Broker, BrokerOptions, program};
use taffrail_e2e::stubs::{produce, read_at, refusal_of_reader};

const TOPIC: &str = "events";
const RECORDS: i64 = 60;
/// Exit code of the broker's commands for damaged data.
const DAMAGED: i32 = 4;

/// A broker that has stored [`RECORDS`] records of `bytes` bytes, each in a batch of its own.
async fn filled(dir: &Path, bytes: usize) -> Result<Broker> {
    let broker = BrokerOptions::new(dir)?.start()?;
    let client = Client::connect(broker.endpoint().as_str())?;
    client.admin().create_topic(NewTopic::new(TOPIC).partitions(1), false).await?;
    for offset in 0..RECORDS {
        assert_eq!(produce(&broker.endpoint(), TOPIC, &value(offset as u64, bytes)).await?, offset);
    }
    Ok(broker)
}

/// One of the broker's commands on a data directory.
fn tool(arguments: &[&str], data_dir: &Path) -> Result<Ended> {
    cli::run(Command::new(program("taffrail-broker")?).args(arguments).arg("--data-dir").arg(data_dir), "")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d5_a_flipped_bit_in_stored_data_costs_its_own_offsets_and_no_others() -> Result<()> {
    let dir = tempfile::tempdir()?;
    // Values larger than RocksDB's blocks: each has blocks of its own.
    let broker = filled(dir.path(), 100_000).await?;
    // The start after a crash seals what was open; then it is in a table file.
    let (_, options) = broker.kill()?.start()?.stop()?;
    assert_eq!(tool(&["verify"], &options.data_dir)?.code, Some(0), "undamaged data is called damaged");
    let damaged: i64 = RECORDS / 2;
    let table = |name: &str| Path::new(name).extension().is_some_and(|e| e == "sst");
    let mut place = find(&options.data_dir, &table, &value(damaged as u64, 100_000)[..64])?;
    place.at += 50_000;
    flip(&place)?;

    let verified = tool(&["verify"], &options.data_dir)?;
    assert_eq!(verified.code, Some(DAMAGED), "{verified:?}");
    assert!(verified.out.contains(&format!("offset {damaged}")), "{}", verified.out);
    let broker = options.start()?;
    let endpoint = broker.endpoint();
    for offset in 0..RECORDS {
        match read_at(&endpoint, TOPIC, offset).await {
            Ok(records) => {
                assert_ne!(offset, damaged, "damaged bytes were served");
                assert_eq!(records[0].value.as_deref().and_then(id_of), Some(offset as u64));
            }
            Err(error) => {
                assert_eq!((offset, error.reason()), (damaged, Reason::DataCorrupt), "{error}");
                assert!(error.to_string().contains(&damaged.to_string()), "{error}");
            }
        }
    }
    let mut consumer = Client::connect(endpoint.as_str())?.consumer().topic(TOPIC).follow(false).build().await?;
    for offset in 0..damaged {
        assert_eq!(consumer.next().await.context("ends early")??.offset, offset);
    }
    let error = consumer.next().await.context("skips the damage")?.expect_err("reads the damage");
    assert_eq!(error.kind(), ErrorKind::DataCorrupt, "{error}");
    assert_eq!(produce(&endpoint, TOPIC, b"on").await?, RECORDS, "writes go on");
    let after = Client::connect(endpoint.as_str())?.consumer().topic(TOPIC).from(Position::Offset(damaged + 1));
    assert_eq!(after.follow(false).build().await?.next().await.context("nothing after it")??.offset, damaged + 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d6_a_flipped_bit_in_the_write_ahead_log_is_named_and_only_a_person_accepts_the_loss() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let options = filled(dir.path(), 1000).await?.kill()?;
    let damaged = RECORDS / 2;
    let log = |name: &str| Path::new(name).extension().is_some_and(|e| e == "log");
    let place = find(&options.data_dir, &log, &value(damaged as u64, 1000)[..64])?;
    flip(&place)?;

    let mut broker = options.spawn()?;
    let named = |status: u16, text: &str| status != 200 && text.contains("damaged");
    let (_, reason) = broker.wait_readiness(&named)?;
    let file = place.file.file_name().and_then(|name| name.to_str()).context("a name")?;
    assert!(reason.contains(file) && reason.contains("byte"), "{reason}");
    assert!(reason.contains("recover"), "it says what to do: {reason}");
    let (status, _) = broker.stop()?;
    assert_eq!(status.code(), Some(DAMAGED));

    let said = tool(&["recover"], &options.data_dir)?.failed(DAMAGED)?;
    assert!(said.contains(file) && said.contains("--accept-loss"), "{said}");
    let again = tool(&["recover"], &options.data_dir)?.failed(DAMAGED)?;
    assert_eq!(again, said, "without --accept-loss nothing changes");
    tool(&["recover", "--accept-loss"], &options.data_dir)?.ok()?;

    let broker = options.start()?;
    let endpoint = broker.endpoint();
    let records = read_at(&endpoint, TOPIC, 0).await?;
    let ids: Vec<_> = records.iter().map(|record| record.value.as_deref().and_then(id_of)).collect();
    assert_eq!(ids, (0..damaged).map(|id| Some(id as u64)).collect::<Vec<_>>(), "all before the damage");
    let refusal = refusal_of_reader(&endpoint, TOPIC, RECORDS, 0).await.context("a reader ahead is served")?;
    assert_eq!(refusal.reason(), Reason::LogTruncated, "{refusal}");
    assert_eq!(produce(&endpoint, TOPIC, b"on").await?, damaged);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d6_a_flipped_bit_in_a_manifest_keeps_the_broker_from_starting() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (_, options) = filled(dir.path(), 1000).await?.kill()?.start()?.stop()?;
    let is_manifest = |name: &str| name.starts_with("MANIFEST-");
    let manifests = files(&options.data_dir, &is_manifest)?;
    assert_eq!(manifests.len(), 2, "one of each database: {manifests:?}");
    for number in 0..manifests.len() {
        // Each start writes new ones.
        let file = files(&options.data_dir, &is_manifest)?.swap_remove(number);
        let middle = std::fs::metadata(&file)?.len() / 2;
        let place = taffrail_e2e::damage::Place { file: file.clone(), at: middle };
        flip(&place)?;
        let (status, _) = options.spawn()?.wait()?;
        assert_eq!(status.code(), Some(DAMAGED), "{}", file.display());
        let log = std::fs::read_to_string(&options.log)?;
        let name = file.file_name().and_then(|name| name.to_str()).context("a name")?;
        assert!(log.contains("does not open") && log.contains(name), "{log}");
        // Without the damage it starts again: it was left alone.
        flip(&place)?;
        assert_eq!(options.start()?.stop()?.0.code(), Some(0));
    }
    Ok(())
}
