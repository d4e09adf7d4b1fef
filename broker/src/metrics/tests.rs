use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::*;
use crate::storage::Status;

fn full() -> Arc<Metrics> {
    let metrics = Metrics::new(Instant::now());
    metrics.topic("orders").produced_records.inc_by(3);
    metrics.observe_storage(Box::new(Status::default));
    let sample = PartitionSample {
        topic: "orders".into(),
        partition: 0,
        log_start: 1,
        high_watermark: 2,
        log_end: 3,
        size_bytes: 4,
    };
    let group = GroupSample { group: "g".into(), members: 2, lag: vec![("orders".into(), 0, 5)] };
    let coordinators = vec![CoordinatorSample::default()];
    let groups = GroupsSample { states: vec![("stable", 1)], groups: vec![group], coordinators };
    metrics.observe_groups(Box::new(move || groups.clone()));
    metrics.observe_replication(Box::new(ReplicationSample::default));
    metrics.observe_partitions(Box::new(move |_| (vec![sample.clone()], 1)));
    metrics
}

/// A metric as the exposition describes it.
#[derive(Default)]
struct Described {
    kind: String,
    unit: String,
    help: String,
    labels: BTreeSet<String>,
}

fn described(text: &str) -> BTreeMap<String, Described> {
    let mut all: BTreeMap<String, Described> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (key, name) = (words.next().unwrap(), words.next().unwrap());
            current = name.to_owned();
            let entry = all.entry(current.clone()).or_default();
            let value = words.next().unwrap_or_default().to_owned();
            match key {
                "HELP" => entry.help = value,
                "TYPE" => entry.kind = value,
                "UNIT" => entry.unit = value,
                other => panic!("unknown comment {other}"),
            }
        } else if let Some((_, labels)) = line.split_once('{') {
            let names = labels.split("\",").filter_map(|l| l.split_once('=')).map(|(name, _)| name.to_owned());
            all.get_mut(&current).unwrap().labels.extend(names.filter(|name| name != "le"));
        }
    }
    all
}

fn table(text: &str) -> String {
    let mut out = String::from(
        "# Metrics\n\nThe broker serves them at `/metrics` of its admin address, in the OpenMetrics text format. \
         A counter is read under its name\nwith `_total`, a histogram with `_bucket`, `_sum` and `_count`. \
         The first 1,000 topics and 10,000 partitions have series of their own;\nfurther topics share the label \
         `__other`.\n\nThis table is made from the program: `UPDATE=1 cargo test --release -p taffrail-broker metrics`.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for (name, d) in described(text) {
        let labels = d.labels.into_iter().map(|l| format!("`{l}`")).collect::<Vec<_>>().join(", ");
        writeln!(out, "| `{name}` | {} | {labels} | {} |", d.kind, d.help.trim_end_matches('.')).unwrap();
    }
    out
}

#[test]
fn the_table_in_docs_is_that_of_the_program() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let table = table(&full().encode());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == table, "docs/metrics.md differs from the program; its first line says how to renew it");
}

#[test]
fn every_metric_has_a_help_and_a_unit_where_its_name_has_one() {
    for (name, d) in described(&full().encode()) {
        assert!(d.help.len() > 10, "{name} has no help");
        let (seconds, bytes) = (name.ends_with("_seconds"), name.ends_with("_bytes"));
        assert_eq!(d.unit == "seconds", seconds, "{name}");
        assert_eq!(d.unit == "bytes", bytes, "{name}");
    }
}

#[test]
fn errors_are_counted_by_reason_and_unknown_numbers_are_not_in_the_way() {
    let metrics = full();
    metrics.error(Reason::DiskFull);
    metrics.error(Reason::DiskFull);
    let text = metrics.encode();
    assert!(text.contains("taffrail_errors_total{reason=\"DISK_FULL\"} 2"), "{text}");
    assert!(text.contains("taffrail_errors_total{reason=\"STORAGE_FAILED\"} 0"), "{text}");
}

#[test]
fn every_series_appears_once() {
    let text = full().encode();
    let series: Vec<&str> =
        text.lines().filter(|l| !l.starts_with('#')).map(|l| l.rsplit_once(' ').unwrap().0).collect();
    assert_eq!(series.iter().collect::<BTreeSet<_>>().len(), series.len());
    assert!(text.ends_with("# EOF\n"));
}
