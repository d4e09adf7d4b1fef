//! `taffrail offsets`: where partitions begin and end, or which offset a moment has.

use anyhow::Result;
use clap::Args;
use serde_json::json;
use taffrail_client::{Client, ListedOffset, OffsetSpec};

use crate::output::{self, Format};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  taffrail offsets orders
  taffrail offsets orders --at 2026-01-31T12:00:00Z")]
pub(crate) struct Offsets {
    /// Name of the topic.
    topic: String,
    /// First record whose timestamp is this moment or later.
    #[arg(long, value_name = "MOMENT", value_parser = humantime::parse_rfc3339_weak)]
    at: Option<std::time::SystemTime>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Offsets {
    pub(crate) async fn run(self, client: &Client) -> Result<()> {
        let admin = client.admin();
        let topic = admin.describe_topics(&[&self.topic], false).await?;
        let partitions: Vec<i32> = topic.iter().flat_map(|t| t.partitions.iter().map(|p| p.index)).collect();
        let specs = match self.at {
            Some(at) => {
                let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                vec![OffsetSpec::Timestamp(since.as_millis() as i64)]
            }
            None => vec![OffsetSpec::Earliest, OffsetSpec::Latest],
        };
        let queries: Vec<_> = partitions.iter().flat_map(|&p| specs.iter().map(move |&spec| (p, spec))).collect();
        let queries: Vec<_> = queries.iter().map(|&(p, spec)| (self.topic.as_str(), p, spec)).collect();
        let found = admin.list_offsets(&queries).await?;
        let found: Vec<_> = partitions.into_iter().zip(found.chunks(specs.len())).collect();
        if self.at.is_some() { moments(&found, self.output) } else { ends(&found, self.output) }
    }
}

fn ends(found: &[(i32, &[ListedOffset])], format: Format) -> Result<()> {
    let ends = found.iter().filter_map(|(partition, ends)| Some((*partition, ends[0].offset?, ends[1].offset?)));
    match format {
        Format::Json => {
            let entry = |(partition, start, end)| json!({ "partition": partition, "start": start, "end": end });
            output::json(&ends.map(entry).collect::<Vec<_>>())
        }
        Format::Table => {
            let row = |(partition, start, end): (i32, i64, i64)| {
                [partition.into(), start, end, end - start].map(|n| n.to_string())
            };
            output::table(["PARTITION", "START", "END", "RECORDS"], ends.map(row))
        }
    }
}

fn moments(found: &[(i32, &[ListedOffset])], format: Format) -> Result<()> {
    match format {
        Format::Json => {
            let entry = |(partition, found): &(i32, &[ListedOffset])| json!({ "partition": partition, "offset": found[0].offset, "timestampMs": found[0].timestamp_ms });
            output::json(&found.iter().map(entry).collect::<Vec<_>>())
        }
        Format::Table => {
            let row = |(partition, found): &(i32, &[ListedOffset])| {
                let offset = found[0].offset.map_or_else(|| "(none as late)".into(), |offset| offset.to_string());
                [partition.to_string(), offset, found[0].timestamp_ms.map_or(String::new(), output::moment)]
            };
            output::table(["PARTITION", "OFFSET", "TIMESTAMP"], found.iter().map(row))
        }
    }
}
