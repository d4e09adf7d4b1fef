//! The report: one row for each figure, with the samples it is made of, as a table, as JSON and as a plot.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use serde::Serialize;

/// Which way is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Better {
    /// More is better: the bounds are minima.
    Higher,
    /// Less is better: the bounds are maxima.
    Lower,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub figure: String,
    /// Unit of the samples; "" for ratios.
    pub unit: &'static str,
    /// Durability class, or "-".
    pub durability: &'static str,
    /// One for each round.
    pub samples: Vec<f64>,
    /// What must be reached.
    pub must: f64,
    /// What is aimed at.
    pub aim: f64,
    /// Which way is good.
    pub better: Better,
    /// CPU seconds of the process under test for each GiB, one for each round; empty when it says nothing.
    pub cpu_s_per_gib: Vec<f64>,
    /// The absolute value behind a ratio, and other things worth knowing.
    pub note: String,
}

/// Middle of the samples; of an even number, the lower one.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

impl Row {
    /// Whether the median reaches `bound`.
    fn reaches(&self, bound: f64) -> bool {
        match self.better {
            Better::Higher => median(&self.samples) >= bound,
            Better::Lower => median(&self.samples) <= bound,
        }
    }

    fn verdict(&self) -> String {
        if self.reaches(self.aim) {
            return "aim reached".into();
        }
        if self.reaches(self.must) {
            return "ok".into();
        }
        let miss = (median(&self.samples) / self.must - 1.0).abs() * 100.0;
        format!("**missed by {miss:.0} %**")
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The rows as a Markdown table.
pub fn table(rows: &[Row]) -> String {
    let mut out = String::from(
        "| figure | durability | median | min – max | must | aim | CPU s/GiB | verdict | note |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let sign = if row.better == Better::Higher { "≥" } else { "≤" };
        let min = row.samples.iter().copied().fold(f64::INFINITY, f64::min);
        let max = row.samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let cpu = if row.cpu_s_per_gib.is_empty() { "–".into() } else { number(median(&row.cpu_s_per_gib)) };
        let _ = writeln!(
            out,
            "| {} | {} | {} {} | {} – {} | {sign} {} | {} | {cpu} | {} | {} |",
            row.figure,
            row.durability,
            number(median(&row.samples)),
            row.unit,
            number(min),
            number(max),
            number(row.must),
            number(row.aim),
            row.verdict(),
            row.note
        );
    }
    out
}

/// Draws each figure as a part of what it must reach: 1 is "must", above is better whichever way the figure counts.
pub fn plot(rows: &[Row], path: &Path) -> Result<()> {
    let fraction = |row: &Row, value: f64| match row.better {
        Better::Higher => value / row.must,
        Better::Lower => row.must / value.max(f64::MIN_POSITIVE),
    };
    let height = 60 + 26 * rows.len() as u32;
    let area = SVGBackend::new(path, (1000, height)).into_drawing_area();
    area.fill(&WHITE).map_err(fault)?;
    let most = 3.0;
    let x = |value: f64| 420 + (value.clamp(0.0, most) / most * 540.0) as i32;
    let text = |size: u32| ("sans-serif", size).into_font();
    let bottom = height as i32 - 30;
    for (value, color) in [(0.0, BLACK), (1.0, RED), (2.0, RGBColor(200, 200, 200)), (3.0, RGBColor(200, 200, 200))] {
        area.draw(&PathElement::new(vec![(x(value), 10), (x(value), bottom)], color)).map_err(fault)?;
        area.draw(&Text::new(format!("{value}"), (x(value) - 3, bottom + 6), text(13))).map_err(fault)?;
    }
    for (i, row) in rows.iter().enumerate() {
        let y = 20 + 26 * i as i32;
        let value = fraction(row, median(&row.samples));
        let color = if row.reaches(row.must) { RGBColor(60, 130, 90) } else { RGBColor(190, 70, 50) };
        area.draw(&Rectangle::new([(x(0.0), y), (x(value), y + 14)], color.filled())).map_err(fault)?;
        let ends = row.samples.iter().map(|s| x(fraction(row, *s)));
        let (low, high) = (ends.clone().min().unwrap_or(0), ends.max().unwrap_or(0));
        area.draw(&PathElement::new(vec![(low, y + 7), (high, y + 7)], BLACK)).map_err(fault)?;
        area.draw(&Text::new(format!("{} ({})", row.figure, row.durability), (8, y), text(12))).map_err(fault)?;
    }
    let legend = "median against what must be reached (red line = 1); thin line: minimum to maximum; bars end at 3";
    area.draw(&Text::new(legend, (8, bottom + 14), text(11))).map_err(fault)?;
    area.present().map_err(fault)
}

fn fault<E: std::fmt::Display>(error: E) -> anyhow::Error {
    anyhow!("draw: {error}")
}
