//! Lines of standard input or of a file, and what key and value they hold.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::sync::mpsc;

/// Longest line that is read: the largest batch a topic may be set to.
const LONGEST_LINE: usize = 32 << 20;
/// Lines that are handed over together, so that the channel costs little.
const CHUNK: usize = 64 << 10;

/// Lines, read on a thread of their own: standard input cannot be awaited.
pub(super) struct Lines {
    receiver: mpsc::Receiver<Result<Vec<Vec<u8>>>>,
    chunk: std::vec::IntoIter<Vec<u8>>,
    number: u64,
    size: Option<u64>,
}

impl Lines {
    pub(super) fn open(file: Option<&Path>) -> Result<Self> {
        let (source, size): (Box<dyn Read + Send>, _) = match file {
            Some(path) => {
                let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
                let size = file.metadata()?.len();
                (Box::new(file), Some(size))
            }
            None => (Box::new(std::io::stdin()), None),
        };
        let (sender, receiver) = mpsc::channel(4);
        std::thread::spawn(move || read(BufReader::with_capacity(CHUNK, source), &sender));
        Ok(Self { receiver, chunk: vec![].into_iter(), number: 0, size })
    }

    /// Bytes in all, where that is known.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// Number of the line that was given last, from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The next line without its end; empty lines are records too.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(line) = self.chunk.next() {
                self.number += 1;
                return Ok(Some(line));
            }
            match self.receiver.recv().await {
                Some(chunk) => self.chunk = chunk?.into_iter(),
                None => return Ok(None),
            }
        }
    }
}

/// Reads to the end. What is there is handed over at once: a line must not wait for the ones after it.
fn read(mut source: BufReader<Box<dyn Read + Send>>, sender: &mpsc::Sender<Result<Vec<Vec<u8>>>>) {
    loop {
        let (mut lines, mut bytes) = (vec![], 0);
        let end = loop {
            let mut line = vec![];
            match source.by_ref().take(LONGEST_LINE as u64 + 1).read_until(b'\n', &mut line) {
                Ok(0) => break Some(Ok(())),
                Ok(_) if line.len() > LONGEST_LINE => {
                    break Some(Err(anyhow::anyhow!("a line is longer than {LONGEST_LINE} bytes")));
                }
                Ok(_) => {}
                Err(error) => break Some(Err(error.into())),
            }
            trim_end(&mut line);
            bytes += line.len();
            lines.push(line);
            if bytes >= CHUNK || !source.buffer().contains(&b'\n') {
                break None;
            }
        };
        if !lines.is_empty() && sender.blocking_send(Ok(lines)).is_err() {
            return;
        }
        match end {
            Some(Err(error)) => {
                let _ = sender.blocking_send(Err(error));
                return;
            }
            Some(Ok(())) => return,
            None => {}
        }
    }
}

fn trim_end(line: &mut Vec<u8>) {
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
}

/// Key and value of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parsed<'a> {
    pub(super) key: Option<Cow<'a, [u8]>>,
    pub(super) value: &'a [u8],
}

/// How a line becomes a record.
pub(super) enum Parser {
    Plain { key: Option<Vec<u8>> },
    Separated { separator: Vec<u8> },
    Json { key_field: Option<String>, key: Option<Vec<u8>> },
}

impl Parser {
    pub(super) fn new(json: bool, key_field: Option<&str>, separator: Option<&str>, key: Option<&str>) -> Self {
        let key = key.map(|k| k.as_bytes().to_vec());
        match separator {
            Some(separator) => Self::Separated { separator: separator.replace("\\t", "\t").into_bytes() },
            None if json => Self::Json { key_field: key_field.map(str::to_owned), key },
            None => Self::Plain { key },
        }
    }

    pub(super) fn parse<'a>(&'a self, line: &'a [u8]) -> Result<Parsed<'a>> {
        let borrowed = |key: &'a Option<Vec<u8>>| key.as_deref().map(Cow::Borrowed);
        match self {
            Self::Plain { key } => Ok(Parsed { key: borrowed(key), value: line }),
            Self::Separated { separator } => {
                let Some(at) = line.windows(separator.len().max(1)).position(|w| w == separator) else {
                    bail!("has no {:?} between key and value", String::from_utf8_lossy(separator));
                };
                Ok(Parsed { key: Some(Cow::Borrowed(&line[..at])), value: &line[at + separator.len()..] })
            }
            Self::Json { key_field, key } => {
                let document: Value = serde_json::from_slice(line).context("is not JSON")?;
                let Some(field) = key_field else { return Ok(Parsed { key: borrowed(key), value: line }) };
                let found = document.get(field).with_context(|| format!("has no field {field:?}"))?;
                let key = match found {
                    Value::Null => None,
                    Value::String(text) => Some(Cow::Owned(text.clone().into_bytes())),
                    other => Some(Cow::Owned(other.to_string().into_bytes())),
                };
                Ok(Parsed { key, value: line })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parser: &Parser, line: &str) -> Option<String> {
        parser.parse(line.as_bytes()).unwrap().key.map(|k| String::from_utf8_lossy(&k).into_owned())
    }

    #[test]
    fn keys_come_from_a_field_of_the_json() {
        let parser = Parser::new(true, Some("id"), None, None);
        assert_eq!(key(&parser, r#"{"id":"a"}"#), Some("a".into()));
        assert_eq!(key(&parser, r#"{"id":7}"#), Some("7".into()));
        assert_eq!(key(&parser, r#"{"id":null}"#), None);
        assert!(parser.parse(b"{}").is_err() && parser.parse(b"no json").is_err());
    }

    #[test]
    fn a_separator_parts_key_and_value_once() {
        let parser = Parser::new(false, None, Some("\\t"), None);
        let parsed = parser.parse(b"a\tb\tc").unwrap();
        assert_eq!((parsed.key.as_deref(), parsed.value), (Some(&b"a"[..]), &b"b\tc"[..]));
        assert!(parser.parse(b"none").is_err());
    }

    #[tokio::test]
    async fn lines_are_given_whole_in_order_and_the_last_one_needs_no_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        std::fs::write(&path, "a\r\n\nlast").unwrap();
        let mut lines = Lines::open(Some(&path)).unwrap();
        let mut found = vec![];
        while let Some(line) = lines.next().await.unwrap() {
            found.push(String::from_utf8(line).unwrap());
        }
        assert_eq!(found, ["a", "", "last"]);
        assert_eq!(lines.number(), 3);
    }
}
