//! Records as text by a template, as JSON lines, or as their bare values.

use std::fmt::Write as _;
use std::io::{BufWriter, Stdout, Write};

use anyhow::{Result, bail};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use taffrail_client::ConsumerRecord;

use super::RecordFormat;
use crate::output;

pub(super) struct Printer {
    out: BufWriter<Stdout>,
    format: RecordFormat,
    template: Vec<Piece>,
}

/// Part of a template.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
    Value,
    Headers,
    Header(String),
}

impl Printer {
    pub(super) fn new(format: RecordFormat, template: &str) -> Result<Self> {
        let out = BufWriter::with_capacity(64 << 10, std::io::stdout());
        Ok(Self { out, format, template: parse(template)? })
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }

    pub(super) fn print(&mut self, record: &ConsumerRecord) -> Result<()> {
        match self.format {
            RecordFormat::Raw => self.out.write_all(record.value.as_deref().unwrap_or_default())?,
            RecordFormat::Json => {
                serde_json::to_writer(&mut self.out, &document(record))?;
                self.out.write_all(b"\n")?;
            }
            RecordFormat::Text => {
                for piece in &self.template {
                    piece.print(record, &mut self.out)?;
                }
            }
        }
        Ok(())
    }
}

impl Piece {
    fn print(&self, record: &ConsumerRecord, out: &mut impl Write) -> std::io::Result<()> {
        match self {
            Self::Text(text) => out.write_all(text.as_bytes()),
            Self::Topic => out.write_all(record.topic.as_bytes()),
            Self::Partition => write!(out, "{}", record.partition),
            Self::Offset => write!(out, "{}", record.offset),
            Self::Timestamp => out.write_all(output::moment(record.timestamp_ms).as_bytes()),
            Self::Key => out.write_all(record.key.as_deref().unwrap_or_default()),
            Self::Value => out.write_all(record.value.as_deref().unwrap_or_default()),
            Self::Headers => {
                for (i, header) in record.headers.iter().enumerate() {
                    let comma = if i == 0 { "" } else { "," };
                    write!(out, "{comma}{}=", header.name)?;
                    out.write_all(header.value.as_deref().unwrap_or_default())?;
                }
                Ok(())
            }
            Self::Header(name) => {
                let found = record.headers.iter().find(|header| header.name == *name);
                out.write_all(found.and_then(|header| header.value.as_deref()).unwrap_or_default())
            }
        }
    }
}

fn parse(template: &str) -> Result<Vec<Piece>> {
    let template = template.replace("\\n", "\n").replace("\\t", "\t");
    let (mut pieces, mut rest) = (vec![], template.as_str());
    while let Some((text, tail)) = rest.split_once('{') {
        pieces.push(Piece::Text(text.to_owned()));
        let Some((name, tail)) = tail.split_once('}') else { bail!("template: \"{{\" without \"}}\"") };
        pieces.push(match name {
            "topic" => Piece::Topic,
            "partition" => Piece::Partition,
            "offset" => Piece::Offset,
            "timestamp" => Piece::Timestamp,
            "key" => Piece::Key,
            "value" => Piece::Value,
            "headers" => Piece::Headers,
            _ => match name.strip_prefix("header:") {
                Some(name) => Piece::Header(name.to_owned()),
                None => bail!(
                    "template: no field {{{name}}}; there are {{topic}} {{partition}} {{offset}} {{timestamp}} {{key}} {{value}} \
                     {{headers}} {{header:NAME}}"
                ),
            },
        });
        rest = tail;
    }
    pieces.push(Piece::Text(rest.to_owned()));
    Ok(pieces)
}

fn document(record: &ConsumerRecord) -> Value {
    let mut document = Map::new();
    document.insert("topic".into(), json!(&*record.topic));
    document.insert("partition".into(), json!(record.partition));
    document.insert("offset".into(), json!(record.offset));
    document.insert("timestampMs".into(), json!(record.timestamp_ms));
    insert(&mut document, "key", record.key.as_ref());
    insert(&mut document, "value", record.value.as_ref());
    let header = |header: &taffrail_client::Header| {
        let mut entry = Map::new();
        entry.insert("name".into(), json!(header.name));
        insert(&mut entry, "value", header.value.as_ref());
        Value::Object(entry)
    };
    if !record.headers.is_empty() {
        document.insert("headers".into(), record.headers.iter().map(header).collect());
    }
    Value::Object(document)
}

/// Text under `name`; bytes that are no UTF-8 in hexadecimal under `nameHex`; null as null.
fn insert(document: &mut Map<String, Value>, name: &str, bytes: Option<&Bytes>) {
    match bytes.map(|b| (b, std::str::from_utf8(b))) {
        None => document.insert(name.into(), Value::Null),
        Some((_, Ok(text))) => document.insert(name.into(), json!(text)),
        Some((bytes, Err(_))) => {
            let mut hex = String::with_capacity(bytes.len() * 2);
            for byte in bytes {
                let _ = write!(hex, "{byte:02x}");
            }
            document.insert(format!("{name}Hex"), json!(hex))
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ConsumerRecord {
        let header = |value: &'static str| taffrail_client::Header {
            name: "h".into(),
            value: Some(Bytes::from_static(value.as_bytes())),
        };
        ConsumerRecord {
            topic: "t".into(),
            partition: 3,
            offset: 7,
            timestamp_ms: 1_000_000_000_000,
            timestamp_type: taffrail_client::TimestampType::CreateTime,
            leader_epoch: 0,
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from_static(b"\xff\x00")),
            headers: vec![header("1"), header("2")],
        }
    }

    #[test]
    fn templates_name_every_part_of_a_record() {
        let mut out = vec![];
        let pieces = parse("{topic}/{partition}/{offset} {timestamp}\\t{key} {headers} {header:h}\\n").unwrap();
        for piece in &pieces {
            piece.print(&record(), &mut out).unwrap();
        }
        assert_eq!(String::from_utf8(out).unwrap(), "t/3/7 2001-09-09T01:46:40Z\tk h=1,h=2 1\n");
        assert!(parse("{nothing}").is_err() && parse("{open").is_err());
    }

    #[test]
    fn json_keeps_bytes_that_are_no_text_and_headers_that_repeat() {
        let expected = r#"{"topic":"t","partition":3,"offset":7,"timestampMs":1000000000000,"key":"k","valueHex":"ff00","headers":[{"name":"h","value":"1"},{"name":"h","value":"2"}]}"#;
        assert_eq!(document(&record()).to_string(), expected);
    }
}
