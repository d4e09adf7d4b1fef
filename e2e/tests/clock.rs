//! The wall clock is stepped by 30 days, forth and back, in a running broker and between runs: offsets, order and what is
//! kept do not follow it (Q2).
//!
//! The clock is libfaketime's (Debian: `faketime`), which takes the place of the C library's wall clock in the broker.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use taffrail_client::{Client, NewTopic};
use taffrail_e2e::damage::files;
use taffrail_e2e::process::{Broker, BrokerOptions};
use taffrail_e2e::stubs::{produce, read_at};

const KEPT: &str = "kept";
const BRIEF: &str = "brief";
const DAY_MS: i64 = 24 * 3600 * 1000;
/// A round of retention runs at the start and every 30 s.
const ROUND: Duration = Duration::from_secs(31);

/// The wall clock of a broker.
struct WallClock {
    file: PathBuf,
}

impl WallClock {
    fn new(dir: &Path) -> Result<Self> {
        let clock = Self { file: dir.join("clock") };
        clock.step("+0")?;
        Ok(clock)
    }

    /// Sets it off the machine's by this: `+30d`.
    fn step(&self, by: &str) -> Result<()> {
        let new = self.file.with_extension("new");
        std::fs::write(&new, by)?;
        Ok(std::fs::rename(new, &self.file)?)
    }

    /// Brokers started so go by it.
    fn of(&self, options: BrokerOptions) -> Result<BrokerOptions> {
        let library = files(Path::new("/usr/lib"), &|name| name == "libfaketimeMT.so.1")?;
        let library = library.first().context("libfaketime is missing: install faketime (.ci/setup e2e)")?;
        let file = self.file.display().to_string();
        Ok(options
            .env("LD_PRELOAD", &library.display().to_string())
            .env("FAKETIME_TIMESTAMP_FILE", &file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1"))
    }
}

/// Appends ten records to each topic and checks that the first has this offset; gives the broker's wall clock.
async fn append(broker: &Broker, first: i64) -> Result<i64> {
    for topic in [KEPT, BRIEF] {
        for offset in first..first + 10 {
            assert_eq!(produce(&broker.endpoint(), topic, format!("{offset}").as_bytes()).await?, offset);
        }
    }
    Ok(read_at(&broker.endpoint(), KEPT, first).await?[0].timestamp_ms)
}

/// All records of the topic that keeps them are there, in order.
async fn check(broker: &Broker, end: i64) -> Result<()> {
    let records = read_at(&broker.endpoint(), KEPT, 0).await?;
    assert!(records.iter().map(|record| record.offset).eq(0..end), "{records:?}");
    assert!(records.iter().all(|record| record.value.as_deref() == Some(record.offset.to_string().as_bytes())));
    Ok(())
}

async fn start_of(broker: &Broker, topic: &str) -> Result<i64> {
    let client = Client::connect(broker.endpoint().as_str())?;
    Ok(client.admin().describe_topics(&[topic], false).await?[0].partitions[0].log_start_offset)
}

#[ignore = "not passing yet: does not end under libfaketime; the cause is not known"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q2_a_wall_clock_stepped_by_thirty_days_moves_no_offset_and_expires_nothing_early() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let clock = WallClock::new(dir.path())?;
    let broker = clock.of(BrokerOptions::new(dir.path())?)?.start()?;
    let client = Client::connect(broker.endpoint().as_str())?;
    for (name, retention) in [(KEPT, "7d"), (BRIEF, "1s")] {
        let topic = NewTopic::new(name).partitions(1).config("retention", retention);
        client.admin().create_topic(topic.config("timestampType", "LogAppendTime"), false).await?;
    }
    let begin = append(&broker, 0).await?;

    // Forth while it runs: new records carry the new time, old ones stay although they look 30 days old.
    clock.step("+30d")?;
    let stepped = append(&broker, 10).await?;
    assert!(((stepped - begin) - 30 * DAY_MS).abs() < DAY_MS, "the clock was not stepped: this test proves nothing");
    // What is open cannot expire: a crash seals it. The start after it is the first of a clock that is far ahead.
    let broker = broker.kill()?.start()?;
    check(&broker, 20).await?;
    append(&broker, 20).await?;
    tokio::time::sleep(ROUND).await;
    check(&broker, 30).await?;
    // Retention is at work: what was sealed of a topic that keeps records for a second is gone.
    assert_eq!(start_of(&broker, BRIEF).await?, 20);

    // Back while it runs, and 30 days further back.
    clock.step("-30d")?;
    let stepped = append(&broker, 30).await?;
    assert!((begin - stepped - 30 * DAY_MS).abs() < DAY_MS);
    let broker = broker.kill()?.start()?;
    check(&broker, 40).await?;
    clock.step("+0")?;
    append(&broker, 40).await?;
    let broker = broker.stop()?.1.start()?;
    check(&broker, 50).await?;
    append(&broker, 50).await?;
    Ok(())
}
