//! Tables for people, JSON for programs.

use std::io::Write;

use anyhow::Result;
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// How to print what was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Prints a value as indented JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    Ok(writeln!(out)?)
}

/// Prints rows under column names.
pub(crate) fn table<const N: usize>(columns: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{}", self::rows(columns, rows))?)
}

/// Rows under column names, without lines, as kubectl shows them.
pub(crate) fn rows<const N: usize>(columns: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(columns);
    for row in rows {
        table.add_row(row);
    }
    table.column_iter_mut().for_each(|column| _ = column.set_padding((0, 2)));
    table.trim_fmt()
}

/// Bytes as people read them.
pub(crate) fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (count.max(1).ilog2() / 10).min(units.len() as u32 - 1);
    let value = count as f64 / f64::from(1u32 << 10).powi(power as i32);
    if power == 0 { format!("{count} B") } else { format!("{value:.1} {}", units[power as usize]) }
}

/// A moment in milliseconds since 1970, as RFC 3339; one that it has no words for as the number.
pub(crate) fn moment(millis: i64) -> String {
    if millis > LAST_MOMENT {
        return format!("{millis} ms after 1970");
    }
    let since = std::time::Duration::from_millis(u64::try_from(millis).unwrap_or_default());
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + since).to_string()
}

/// The end of the year 9999, beyond which RFC 3339 does not go.
const LAST_MOMENT: i64 = 253_402_300_799_999;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_in_the_largest_unit_that_fits() {
        let written = [0, 1023, 1024, 1536, 5 << 30].map(bytes);
        assert_eq!(written, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 GiB"]);
    }

    #[test]
    fn moments_are_written_in_utc() {
        assert_eq!(moment(1_000_000_000_000), "2001-09-09T01:46:40Z");
        assert_eq!(moment(LAST_MOMENT), "9999-12-31T23:59:59Z");
        assert_eq!(moment(i64::MAX), "9223372036854775807 ms after 1970");
    }
}
