//! `taffrail consume`: records out.

mod member;
mod print;

use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use futures::FutureExt;
use taffrail_client::{Client, Consumer, Position, ResetPolicy};

use self::print::Printer;

#[derive(Debug, Args)]
#[command(after_help = "\
Without --follow it ends at the end that the partitions had when it began. Order holds within each partition.

With --group it shares the topics with all that run with the same group: each partition is read by one of them, from \
where the group stopped. What was printed is committed, so that a group sees each record at least once; a process that \
is killed between the two leaves the records to another, which prints them again.

Examples:
  taffrail consume orders
  taffrail consume orders --from 1h --follow
  taffrail consume orders --group billing --follow --verbose
  taffrail consume orders --group billing --commit at-most-once --follow
  taffrail consume orders --partition 3 --from 1500 --limit 10 -o json
  taffrail consume orders --template '{partition}/{offset} {timestamp} {key} {header:trace} {value}\\n'")]
pub(crate) struct Consume {
    /// Names of topics.
    #[arg(required = true)]
    topics: Vec<String>,
    /// Where to begin: earliest, latest, an offset, a moment (2026-01-31T12:00:00Z), or a time ago (90s, 1h, 7d).
    #[arg(long, default_value = "earliest", value_parser = position)]
    from: Position,
    /// Wait for new records; end with Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// Only this partition; may be given several times.
    #[arg(short, long = "partition")]
    partitions: Vec<i32>,
    /// End after this many records.
    #[arg(short = 'n', long, value_name = "RECORDS")]
    limit: Option<u64>,
    /// How to print records.
    #[arg(short, long, value_enum, default_value_t)]
    output: RecordFormat,
    /// How to print a record as text: {topic} {partition} {offset} {timestamp} {key} {value} {headers} {header:NAME}, \t, \n.
    #[arg(long, value_name = "TEXT", conflicts_with = "output", default_value = "{value}\\n")]
    template: String,
    /// What to do where records that come next are gone: fail, or go on at the earliest or latest there is. In a group also
    /// where to begin in a partition for which nothing is committed; default there: earliest.
    #[arg(long, value_enum)]
    reset: Option<Reset>,
    /// Zone of this process, named as the brokers' nodes name theirs: in-sync replicas there are read in place of leaders
    /// elsewhere.
    #[arg(long, value_name = "ZONE", env = "TAFFRAIL_ZONE")]
    zone: Option<String>,
    /// Read as a member of this group, from where it stopped.
    #[arg(short, long, value_name = "GROUP", conflicts_with_all = ["from", "partitions"])]
    group: Option<String>,
    #[command(flatten)]
    member: Member,
}

/// How to be a member of a group.
#[derive(Debug, Args)]
#[command(next_help_heading = "With --group")]
struct Member {
    /// When to commit: after records are printed, or before.
    #[arg(long, value_enum, default_value_t, requires = "group")]
    commit: Commit,
    /// Be a static member: come back under this name within the session timeout, and no partition moves.
    #[arg(long, value_name = "NAME", requires = "group")]
    instance_id: Option<String>,
    /// How long the group waits for a member that is not heard of before it gives its partitions to others.
    #[arg(long, value_name = "TIME", default_value = "45s", value_parser = humantime::parse_duration, requires = "group")]
    session_timeout: Duration,
    /// Tell on standard error which partitions come and go.
    #[arg(short, long, requires = "group")]
    verbose: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Commit {
    /// After: what a process that dies had printed last may be printed again.
    #[default]
    AtLeastOnce,
    /// Before: what a process that dies had not printed yet is lost.
    AtMostOnce,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum RecordFormat {
    /// By --template: each value on a line.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
    /// Values one after the other, nothing between.
    Raw,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Reset {
    Fail,
    Earliest,
    Latest,
}

impl From<Reset> for ResetPolicy {
    fn from(reset: Reset) -> Self {
        match reset {
            Reset::Fail => Self::Fail,
            Reset::Earliest => Self::Earliest,
            Reset::Latest => Self::Latest,
        }
    }
}

/// A position as people write it.
pub(crate) fn position(text: &str) -> Result<Position, String> {
    match text {
        "earliest" => return Ok(Position::Earliest),
        "latest" => return Ok(Position::Latest),
        _ => {}
    }
    if let Ok(offset) = text.parse::<i64>() {
        return if offset < 0 { Err("offsets begin at 0".into()) } else { Ok(Position::Offset(offset)) };
    }
    let moment = humantime::parse_rfc3339_weak(text).ok();
    let moment = moment.or_else(|| std::time::SystemTime::now().checked_sub(humantime::parse_duration(text).ok()?));
    let since = moment.and_then(|m| m.duration_since(std::time::UNIX_EPOCH).ok());
    let advice = "write earliest, latest, an offset, a moment such as 2026-01-31T12:00:00Z, or a time ago such as 1h";
    since.map(|s| Position::Timestamp(s.as_millis() as i64)).ok_or_else(|| advice.into())
}

impl Consume {
    pub(crate) async fn run(self, client: &Client) -> Result<()> {
        if !self.partitions.is_empty() && self.topics.len() > 1 {
            bail!("--partition needs a single topic");
        }
        let mut printer = Printer::new(self.output, &self.template)?;
        if let Some(group) = &self.group {
            return self.run_member(client, group, &mut printer).await;
        }
        let reset = self.reset.map_or(ResetPolicy::Fail, Into::into);
        let builder = client.consumer().from(self.from).follow(self.follow).reset(reset);
        let builder = match &self.zone {
            Some(zone) => builder.zone(zone),
            None => builder,
        };
        let builder = match self.partitions.as_slice() {
            [] => builder.topics(self.topics.clone()),
            partitions => builder.partitions(&self.topics[0], partitions.iter().copied()),
        };
        let consumer = builder.build().await?;
        let result = tokio::select! {
            result = self.print_all(consumer, &mut printer) => result,
            () = interrupted() => Ok(()),
        };
        printer.flush()?;
        result
    }

    async fn print_all(&self, mut consumer: Consumer, printer: &mut Printer) -> Result<()> {
        let mut left = self.limit.unwrap_or(u64::MAX);
        while left > 0 {
            let next = if let Some(next) = consumer.next().now_or_never() {
                next
            } else {
                // What was read is shown before waiting: whoever follows must not wait for the records after it.
                printer.flush()?;
                consumer.next().await
            };
            let Some(record) = next else { return Ok(()) };
            printer.print(&record?)?;
            left -= 1;
        }
        Ok(())
    }
}

/// Until Ctrl-C or SIGTERM.
pub(crate) async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_words_offsets_moments_and_times_ago() {
        assert_eq!(position("latest"), Ok(Position::Latest));
        assert_eq!(position("42"), Ok(Position::Offset(42)));
        assert_eq!(position("2001-09-09T01:46:40Z"), Ok(Position::Timestamp(1_000_000_000_000)));
        assert!(matches!(position("1h"), Ok(Position::Timestamp(ms)) if ms > 1_000_000_000_000));
        assert!(position("-1").is_err() && position("yesterday").is_err());
    }
}
