//! The real input: 20,000 flights, one JSON object a line (`e2e/data/README.md` says where they are from).

pub mod proof;

use std::io::Read;

use anyhow::{Context, Result};
use serde::Deserialize;

const DATA: &[u8] = include_bytes!("../data/flights-20k.jsonl.gz");

/// One flight, as far as proofs need it.
#[derive(Debug, Deserialize)]
pub struct Flight {
    /// IATA code of the airport it left: the record's key.
    pub origin: String,
}

/// All lines, in order, without their line ends.
pub fn lines() -> Result<Vec<String>> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(DATA).read_to_string(&mut text).context("unpack the flights")?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The airport a line's flight left.
pub fn origin(line: &str) -> Result<String> {
    Ok(serde_json::from_str::<Flight>(line).with_context(|| format!("not a flight: {line}"))?.origin)
}
