//! `taffrail group describe`: once, or live.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use serde_json::{Value, json};
use taffrail_client::{Admin, GroupDescription, GroupMember, GroupPartition};

use super::state_name;
use crate::consume::interrupted;
use crate::output::{self, Format};

/// Cursor to the top left, and everything below cleared.
const CLEAR: &str = "\x1b[H\x1b[J";

pub(super) async fn run(admin: &Admin, group: &str, every: Option<Duration>, format: Format) -> Result<()> {
    match every {
        None => {
            let found = admin.describe_group(group).await?;
            if format == Format::Json { output::json(&document(&found)) } else { print(&tables(&found)) }
        }
        Some(every) => tokio::select! {
            result = watch(admin, group, every, format) => result,
            () = interrupted() => Ok(()),
        },
    }
}

async fn watch(admin: &Admin, group: &str, every: Duration, format: Format) -> Result<()> {
    let terminal = std::io::stdout().is_terminal();
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(100)));
    loop {
        ticks.tick().await;
        let found = admin.describe_group(group).await?;
        match format {
            Format::Json => print(&format!("{}\n", document(&found)))?,
            Format::Table if terminal => print(&format!("{CLEAR}{}", tables(&found)))?,
            Format::Table => {
                print(&format!("{} {}\n", humantime::format_rfc3339_seconds(SystemTime::now()), line(&found)))?;
            }
        }
    }
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

fn lag(group: &GroupDescription) -> i64 {
    group.partitions.iter().map(|p| p.lag).sum()
}

/// All that matters in a line.
fn line(group: &GroupDescription) -> String {
    let summary = group.summary.clone().unwrap_or_default();
    format!(
        "group {}: {}, {} members, epoch {}, assignor {}, lag {}",
        summary.group,
        state_name(summary.state),
        summary.members,
        summary.epoch,
        group.assignor,
        lag(group)
    )
}

fn tables(group: &GroupDescription) -> String {
    let mut text = line(group);
    text.push_str("\n\n");
    let partition = |p: &GroupPartition| {
        let committed = p.committed.map_or_else(|| "(none)".to_owned(), |offset| offset.to_string());
        let topic = if p.topic.is_empty() { format!("(deleted {})", p.topic_id) } else { p.topic.clone() };
        [
            topic,
            p.partition.to_string(),
            committed,
            p.high_watermark.to_string(),
            p.lag.to_string(),
            p.member_id.clone(),
        ]
    };
    let columns = ["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "MEMBER"];
    let _ = writeln!(text, "{}", output::rows(columns, group.partitions.iter().map(partition)));
    if !group.members.is_empty() {
        let columns = ["MEMBER", "INSTANCE", "CLIENT", "HOST", "EPOCH", "PARTITIONS", "GIVING UP"];
        let _ = writeln!(text, "\n{}", output::rows(columns, group.members.iter().map(member)));
    }
    text
}

fn member(m: &GroupMember) -> [String; 7] {
    let epoch = if m.member_epoch == -2 { "away".to_owned() } else { m.member_epoch.to_string() };
    let instance = m.instance_id.clone();
    [
        m.member_id.clone(),
        instance,
        m.client_id.clone(),
        m.client_host.clone(),
        epoch,
        names(&m.assigned),
        names(&m.revoking),
    ]
}

/// Partitions in short: "orders/0,1,5 payments/2".
fn names(topics: &[taffrail_client::TopicPartitions]) -> String {
    let topic = |t: &taffrail_client::TopicPartitions| {
        let numbers: Vec<String> = t.partitions.iter().map(ToString::to_string).collect();
        format!("{}/{}", t.topic, numbers.join(","))
    };
    topics.iter().map(topic).collect::<Vec<_>>().join(" ")
}

fn document(group: &GroupDescription) -> Value {
    let summary = group.summary.clone().unwrap_or_default();
    let topics = |topics: &[taffrail_client::TopicPartitions]| -> Vec<Value> {
        topics.iter().map(|t| json!({ "topic": t.topic, "topicId": t.topic_id, "partitions": t.partitions })).collect()
    };
    let member = |m: &GroupMember| {
        json!({
            "memberId": m.member_id, "instanceId": m.instance_id, "clientId": m.client_id, "clientHost": m.client_host,
            "rack": m.rack, "epoch": m.member_epoch, "assigned": topics(&m.assigned), "revoking": topics(&m.revoking),
            "target": topics(&m.target),
        })
    };
    let partition = |p: &GroupPartition| {
        json!({
            "topic": p.topic, "topicId": p.topic_id, "partition": p.partition, "committed": p.committed,
            "highWatermark": p.high_watermark, "lag": p.lag, "memberId": p.member_id,
        })
    };
    json!({
        "group": summary.group, "state": state_name(summary.state), "type": summary.r#type, "epoch": summary.epoch,
        "assignmentEpoch": group.assignment_epoch, "assignor": group.assignor, "coordinator": group.coordinator,
        "lag": lag(group),
        "members": group.members.iter().map(member).collect::<Vec<_>>(),
        "partitions": group.partitions.iter().map(partition).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_summed_and_what_is_not_committed_is_said() {
        let partition = |partition, committed, lag| GroupPartition {
            topic: "orders".into(),
            partition,
            committed,
            high_watermark: 10,
            lag,
            ..GroupPartition::default()
        };
        let group = GroupDescription {
            partitions: vec![partition(0, Some(7), 3), partition(1, None, 10)],
            ..GroupDescription::default()
        };
        assert_eq!(document(&group)["lag"], 13);
        assert_eq!(document(&group)["partitions"][1]["committed"], Value::Null);
        assert!(tables(&group).contains("(none)"), "{}", tables(&group));
    }
}
