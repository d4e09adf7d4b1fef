//! The wall clock is stepped by 30 days, forth and back, in a running broker and between runs: offsets, order and what is
//! kept do not follow it (Q2).

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use taffrail_client::{Client, NewTopic};
use taffrail_e2e::process::{Broker, BrokerOptions};
use taffrail_e2e::stubs::{produce, read_at};
use taffrail_e2e::wall_clock::WallClock;

/// Keeps records for a week.
const KEPT: &str = "kept";
/// Keeps records for a second: shows that retention is at work.
const BRIEF: &str = "brief";
const BRIEFLY: Duration = Duration::from_secs(1);
const MONTH: Duration = Duration::from_hours(30 * 24);
/// Rounds of retention come at the start and every 30 s; each may take its time.
const ROUND: Duration = Duration::from_mins(2);

/// Appends ten records to each topic and checks that the first has this offset; gives the broker's wall clock in
/// milliseconds.
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

/// What the broker has written is sealed by a crash, and gets older than the brief topic keeps it; a start follows.
async fn restart(broker: Broker) -> Result<Broker> {
    let options = broker.kill()?;
    tokio::time::sleep(BRIEFLY * 2).await;
    options.start()
}

/// Waits until retention has given up all of the brief topic below `end`, and looks what it did to the other.
async fn retention_takes_only_what_is_old(broker: &Broker, end: i64) -> Result<()> {
    let client = Client::connect(broker.endpoint().as_str())?;
    let begin = Instant::now();
    while client.admin().describe_topics(&[BRIEF], false).await?[0].partitions[0].log_start_offset < end {
        ensure!(begin.elapsed() < ROUND, "retention has not run");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    check(broker, end).await
}

/// Waits for a round in which the broker noticed the step.
async fn noticed(broker: &Broker) -> Result<()> {
    let begin = Instant::now();
    while !broker.log_tail().contains("the wall clock jumped") {
        ensure!(begin.elapsed() < ROUND, "the broker has not noticed:\n{}", broker.log_tail());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q2_a_wall_clock_stepped_by_thirty_days_moves_no_offset_and_expires_nothing_early() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let clock = WallClock::new(dir.path())?;
    let broker = clock.of(BrokerOptions::new(dir.path())?).start()?;
    let client = Client::connect(broker.endpoint().as_str())?;
    for (name, retention) in [(KEPT, "7d"), (BRIEF, "1s")] {
        let topic = NewTopic::new(name).partitions(1).config("retention", retention);
        client.admin().create_topic(topic.config("timestampType", "LogAppendTime"), false).await?;
    }
    let begin = append(&broker, 0).await?;
    let is_off = |millis: i64, months: i64| (millis - begin - months * MONTH.as_millis() as i64).abs() < 3_600_000;
    // What is open cannot expire: the steps find records that could.
    let broker = restart(broker).await?;
    retention_takes_only_what_is_old(&broker, 10).await?;

    // Forth while it runs: new records carry the new time, old ones stay although they look 30 days old.
    clock.ahead(MONTH)?;
    assert!(is_off(append(&broker, 10).await?, 1), "the clock was not stepped: this test proves nothing");
    noticed(&broker).await?;
    check(&broker, 20).await?;
    // The first start of a clock that is far ahead, which cannot know that it was stepped.
    let broker = restart(broker).await?;
    retention_takes_only_what_is_old(&broker, 20).await?;

    // Back while it runs, 30 days behind where it began.
    clock.behind(MONTH)?;
    assert!(is_off(append(&broker, 20).await?, -1));
    let broker = restart(broker).await?;
    retention_takes_only_what_is_old(&broker, 30).await?;

    // And right again.
    clock.ahead(Duration::ZERO)?;
    assert!(is_off(append(&broker, 30).await?, 0));
    let broker = restart(broker).await?;
    retention_takes_only_what_is_old(&broker, 40).await?;
    append(&broker, 40).await?;
    Ok(())
}
