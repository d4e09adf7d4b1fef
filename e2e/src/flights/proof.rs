//! The proof that all flights are stored once, whole and in order: what the demos end with.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::origin;

/// A record as `taffrail consume -o json` prints it.
#[derive(Clone, Debug, Deserialize)]
pub struct Record {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its key: the airport.
    pub key: Option<String>,
    /// Its value: the line.
    pub value: Option<String>,
}

impl Record {
    /// All that was printed.
    pub fn all(printed: &str) -> Result<Vec<Self>> {
        printed
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("not a record: {line}")))
            .collect()
    }
}

/// What holds of the records that were stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    sent: usize,
    /// The end of each partition.
    pub ends: BTreeMap<i32, i64>,
    airports: usize,
}

/// Compares what is stored, in the order of each partition, with what was sent, in the order of each airport.
pub fn prove(sent: &[String], stored: &[Record]) -> Result<Proof> {
    ensure!(sent.len() == stored.len(), "{} records sent, but {} stored", sent.len(), stored.len());
    let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
    let mut airports: HashMap<&str, (i32, Vec<&str>)> = HashMap::new();
    for record in stored {
        let expected = ends.entry(record.partition).or_default();
        ensure!(
            record.offset == *expected,
            "partition {}: offset {} after {expected}",
            record.partition,
            record.offset
        );
        *expected += 1;
        let key = record.key.as_deref().context("a record without a key")?;
        let (partition, values) = airports.entry(key).or_insert_with(|| (record.partition, vec![]));
        ensure!(*partition == record.partition, "{key} is in partitions {partition} and {}", record.partition);
        values.push(record.value.as_deref().context("a record without a value")?);
    }
    let mut expected: HashMap<String, Vec<&str>> = HashMap::new();
    for line in sent {
        expected.entry(origin(line)?).or_default().push(line);
    }
    for (airport, lines) in &expected {
        let (_, values) = airports.get(airport.as_str()).with_context(|| format!("no flight from {airport}"))?;
        ensure!(values == lines, "flights from {airport} differ from what was sent, or their order does");
    }
    Ok(Proof { sent: sent.len(), ends, airports: airports.len() })
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, ends, airports } = self;
        let counts: Vec<_> = ends.values().collect();
        writeln!(f, "  records sent = records stored   {sent} = {sent}")?;
        writeln!(f, "  offsets without gap             {} partitions, each from 0: {counts:?}", ends.len())?;
        let places = "each in exactly one partition, in the order sent";
        writeln!(f, "  one partition an airport        {airports} airports, {places}")?;
        writeln!(f, "  bytes as sent                   each record equals its line")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent() -> Vec<String> {
        [("JFK", 1), ("LAX", 2), ("JFK", 3)].map(|(origin, n)| format!(r#"{{"origin":"{origin}","n":{n}}}"#)).into()
    }

    fn stored() -> Vec<Record> {
        let places = [(0, 0, "JFK", 0), (1, 0, "LAX", 1), (0, 1, "JFK", 2)];
        let record = |(partition, offset, key, line): (i32, i64, &str, usize)| Record {
            partition,
            offset,
            key: Some(key.to_owned()),
            value: Some(sent()[line].clone()),
        };
        places.map(record).into()
    }

    #[test]
    fn what_is_stored_as_it_was_sent_is_proven() {
        let proof = prove(&sent(), &stored()).expect("all is there");
        assert_eq!((proof.sent, proof.airports, &proof.ends), (3, 2, &BTreeMap::from([(0, 2), (1, 1)])));
        assert!(proof.to_string().contains("3 = 3"));
    }

    #[test]
    fn what_is_missing_doubled_moved_or_out_of_order_is_told() {
        type Change = fn(&mut Vec<Record>);
        let changes: [(Change, &str); 7] = [
            (|stored| stored.truncate(2), "3 records sent, but 2 stored"),
            (|stored| stored.push(stored[0].clone()), "but 4 stored"),
            (|stored| stored[2].offset = 2, "partition 0: offset 2 after 1"),
            (|stored| (stored[2].partition, stored[2].offset) = (1, 1), "JFK is in partitions 0 and 1"),
            (|stored| stored[1].key = None, "without a key"),
            (|stored| stored[1].key = Some("SFO".to_owned()), "no flight from LAX"),
            (
                |stored| (stored[0].value, stored[2].value) = (stored[2].value.clone(), stored[0].value.clone()),
                "JFK differ",
            ),
        ];
        for (change, expected) in changes {
            let mut stored = stored();
            change(&mut stored);
            let error = prove(&sent(), &stored).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}, not {expected}");
        }
    }

    #[test]
    fn records_are_read_as_they_are_printed() {
        let printed = "{\"topic\":\"t\",\"partition\":1,\"offset\":7,\"key\":\"k\",\"value\":\"v\"}\n";
        let records = Record::all(printed).expect("a record");
        assert_eq!((records[0].partition, records[0].offset, records[0].value.as_deref()), (1, 7, Some("v")));
        assert!(Record::all("warning: x").is_err());
    }
}
