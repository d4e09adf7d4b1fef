//! `taffrail group`: shows, resets and removes consumer groups.

mod describe;

use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use taffrail_client::{
    Admin, Client, ErrorKind, GroupState, GroupSummary, OffsetChange, OffsetReset, Position, ResetTo,
};

use crate::consume::position;
use crate::output::{self, Format};

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Lists groups.
    #[command(visible_alias = "ls")]
    List {
        /// Only groups in this state; may be given several times.
        #[arg(long = "state", value_enum)]
        states: Vec<State>,
        /// Only groups whose names begin so.
        #[arg(long, default_value = "")]
        prefix: String,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Shows a group's members, what each owns, and how far behind it is.
    #[command(after_help = "\
Lag is the number of records between the committed offset and the end of a partition; from the partition's start where \
nothing is committed. With --watch it is shown anew until Ctrl-C: as a table on a terminal, else as a line each time, or \
as a JSON object a line with -o json.

Examples:
  taffrail group describe billing
  taffrail group describe billing --watch --every 1s
  taffrail group describe billing -o json | jq '[.partitions[].lag] | add'")]
    Describe {
        /// The group.
        group: String,
        /// Show it again and again.
        #[arg(short, long)]
        watch: bool,
        /// How often.
        #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration, requires = "watch")]
        every: Duration,
        /// How to print.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Moves a group's committed offsets, so that it reads again, or leaves out, records.
    Reset(Reset),
    /// Removes a group without members, with its committed offsets.
    Delete {
        /// The group.
        group: String,
        /// Do not fail if there is no such group.
        #[arg(long)]
        if_exists: bool,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Stop the group's members first: they go on where they are, and what they commit overwrites the reset. --force does it \
all the same. Offsets that are not there are taken to the nearest that is.

Examples:
  taffrail group reset billing --to earliest --dry-run
  taffrail group reset billing --to earliest
  taffrail group reset billing orders --to 2026-01-31T12:00:00Z
  taffrail group reset billing orders:0,3 --to 1500
  taffrail group reset billing orders --to 1h             one hour ago
  taffrail group reset billing --shift-by -100            the last hundred of each partition again")]
pub(crate) struct Reset {
    /// The group. It is made if it is not there.
    group: String,
    /// Only these topics, or partitions of them (TOPIC:0,3); default: every partition with a committed offset.
    #[arg(value_name = "TOPIC[:PARTITIONS]", value_parser = topic)]
    topics: Vec<Topic>,
    /// To where: earliest, latest, an offset, a moment (2026-01-31T12:00:00Z), or a time ago (90s, 1h, 7d).
    #[arg(long, value_parser = position, required_unless_present = "shift_by", conflicts_with = "shift_by")]
    to: Option<Position>,
    /// By this many records from what is committed; back if negative.
    #[arg(long, value_name = "RECORDS", allow_negative_numbers = true)]
    shift_by: Option<i64>,
    /// Show what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Also while the group has members.
    #[arg(long)]
    force: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    Empty,
    Assigning,
    Reconciling,
    Stable,
}

impl From<State> for GroupState {
    fn from(state: State) -> Self {
        match state {
            State::Empty => Self::Empty,
            State::Assigning => Self::Assigning,
            State::Reconciling => Self::Reconciling,
            State::Stable => Self::Stable,
        }
    }
}

/// A topic, and those of its partitions that are meant; none: all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    name: String,
    partitions: Vec<i32>,
}

fn topic(text: &str) -> Result<Topic, String> {
    let (name, numbers) = text.split_once(':').unwrap_or((text, ""));
    let numbers = numbers.split(',').filter(|n| !n.is_empty());
    let number = |n: &str| n.parse::<i32>().ok().filter(|n| *n >= 0).ok_or("write TOPIC or TOPIC:0,3");
    let partitions = numbers.map(number).collect::<Result<Vec<_>, _>>()?;
    if name.is_empty() {
        return Err("name a topic".into());
    }
    Ok(Topic { name: name.to_owned(), partitions })
}

impl GroupCommand {
    pub(crate) async fn run(self, client: &Client) -> Result<()> {
        let admin = client.admin();
        match self {
            Self::List { states, prefix, output } => list(&admin, &states, &prefix, output).await,
            Self::Describe { group, watch, every, output } => {
                let every = watch.then_some(every);
                describe::run(&admin, &group, every, output).await
            }
            Self::Reset(reset) => reset.run(&admin).await,
            Self::Delete { group, if_exists } => delete(&admin, &group, if_exists).await,
        }
    }
}

/// A state as people write it.
fn state_name(state: i32) -> &'static str {
    match GroupState::try_from(state) {
        Ok(GroupState::Empty) => "empty",
        Ok(GroupState::Assigning) => "assigning",
        Ok(GroupState::Reconciling) => "reconciling",
        Ok(GroupState::Stable) => "stable",
        _ => "unknown",
    }
}

async fn list(admin: &Admin, states: &[State], prefix: &str, format: Format) -> Result<()> {
    let states: Vec<GroupState> = states.iter().map(|s| (*s).into()).collect();
    let groups = admin.list_groups(&states, prefix).await?;
    if format == Format::Json {
        return output::json(&groups.iter().map(summary).collect::<Vec<_>>());
    }
    if groups.is_empty() {
        eprintln!("no groups: `taffrail consume TOPIC --group NAME` makes one");
        return Ok(());
    }
    let row = |g: &GroupSummary| {
        [g.group.clone(), state_name(g.state).to_owned(), g.members.to_string(), g.epoch.to_string()]
    };
    output::table(["GROUP", "STATE", "MEMBERS", "EPOCH"], groups.iter().map(row))
}

fn summary(g: &GroupSummary) -> Value {
    json!({ "group": g.group, "state": state_name(g.state), "type": g.r#type, "members": g.members, "epoch": g.epoch })
}

impl Reset {
    async fn run(self, admin: &Admin) -> Result<()> {
        let to = match (self.to, self.shift_by) {
            (Some(Position::Earliest), _) => ResetTo::Earliest,
            (Some(Position::Latest), _) => ResetTo::Latest,
            (Some(Position::Offset(offset)), _) => ResetTo::Offset(offset),
            (Some(Position::Timestamp(ms)), _) => ResetTo::Timestamp(ms),
            (None, Some(records)) => ResetTo::ShiftBy(records),
            (None, None) => bail!("give --to or --shift-by"),
        };
        let reset = OffsetReset::new(to).dry_run(self.dry_run).force(self.force);
        let reset = self.topics.into_iter().fold(reset, |reset, topic| match topic.partitions.as_slice() {
            [] => reset.topic(topic.name),
            partitions => reset.partitions(topic.name, partitions.iter().copied()),
        });
        let changes = admin.reset_offsets(&self.group, reset).await?;
        print_changes(&self.group, &changes, self.dry_run, self.output)
    }
}

fn print_changes(group: &str, changes: &[OffsetChange], dry_run: bool, format: Format) -> Result<()> {
    if format == Format::Json {
        let change = |c: &OffsetChange| json!({ "topic": c.topic, "partition": c.partition, "before": c.before, "after": c.after });
        return output::json(&changes.iter().map(change).collect::<Vec<_>>());
    }
    if changes.is_empty() {
        eprintln!("group {group} has committed nothing: name topics");
        return Ok(());
    }
    let before = |c: &OffsetChange| c.before.map_or_else(|| "(none)".to_owned(), |offset| offset.to_string());
    let row = |c: &OffsetChange| [c.topic.clone(), c.partition.to_string(), before(c), c.after.to_string()];
    output::table(["TOPIC", "PARTITION", "BEFORE", "AFTER"], changes.iter().map(row))?;
    if dry_run {
        eprintln!("nothing was changed (--dry-run)");
    }
    Ok(())
}

async fn delete(admin: &Admin, group: &str, if_exists: bool) -> Result<()> {
    match admin.delete_group(group).await {
        Ok(()) => println!("group {group} is deleted"),
        Err(error) if if_exists && error.kind() == ErrorKind::NotFound => println!("there is no group {group}"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_named_with_or_without_partitions() {
        let parsed = |text| topic(text).map(|t| (t.name, t.partitions));
        assert_eq!(parsed("orders"), Ok(("orders".into(), vec![])));
        assert_eq!(parsed("orders:0,3"), Ok(("orders".into(), vec![0, 3])));
        for bad in [":1", "orders:x", "orders:-1", ""] {
            assert!(topic(bad).is_err(), "{bad}");
        }
    }
}
