//! The report: what was taken, as Markdown and as a plot.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::figures::{self, Figure};
use super::profile::Profile;
use super::results::{Limit, Results, Taken};

const HEAD: &str = "| figure | durability | median | min – max | rounds | must | aim | CPU s/GiB | verdict | note |\n\
                    |---|---|---|---|---|---|---|---|---|---|\n";

/// Which way is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// More is better: the bounds are minima.
    Higher,
    /// Less is better: the bounds are maxima.
    Lower,
}

impl Better {
    /// Whether a value is as good as a bound.
    pub fn reaches(self, value: f64, bound: f64) -> bool {
        match self {
            Self::Higher => value >= bound,
            Self::Lower => value <= bound,
        }
    }

    fn sign(self) -> char {
        if self == Self::Higher { '≥' } else { '≤' }
    }
}

/// Middle of the samples; of an even number, the lower one.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

fn verdict(figure: &Figure, taken: &Taken) -> String {
    let value = taken.median();
    if figure.better.reaches(value, figure.aim) {
        return "aim reached".into();
    }
    if figure.better.reaches(value, figure.must) {
        return "ok".into();
    }
    format!("**missed by {:.0} %**", (value / figure.must - 1.0).abs() * 100.0)
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn range(samples: &[f64]) -> String {
    let min = samples.iter().copied().fold(f64::INFINITY, f64::min);
    let max = samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{} – {}", number(min), number(max))
}

/// What was taken, each with its figure, in the order of the figures.
fn rows(results: &Results) -> Vec<(Figure, &Taken)> {
    figures::all().filter_map(|f| Some((f, results.rows.iter().find(|row| row.id == f.id)?))).collect()
}

/// The rows as a Markdown table.
pub fn table(results: &Results) -> String {
    let mut out = String::from(HEAD);
    for (figure, taken) in rows(results) {
        let cpu = if taken.cpu_s_per_gib.is_empty() { "–".into() } else { number(median(&taken.cpu_s_per_gib)) };
        let _ = writeln!(
            out,
            "| {} | {} | {} {} | {} | {} | {} {} | {} | {cpu} | {} | {} |",
            figure.title,
            figure.durability,
            number(taken.median()),
            figure.unit,
            range(&taken.samples),
            taken.samples.len(),
            figure.better.sign(),
            number(figure.must),
            number(figure.aim),
            verdict(&figure, taken),
            taken.note
        );
    }
    out
}

fn limits(limits: &[Limit]) -> String {
    let mut out = String::from("| limit, MB/s | beside | median | min – max |\n|---|---|---|---|\n");
    for Limit { name, part, samples } in limits {
        let _ = writeln!(out, "| {name} | {part} | {} | {} |", number(median(samples)), range(samples));
    }
    out
}

fn profiles(profiles: &[Profile]) -> String {
    let mut out = String::new();
    for Profile { figures, svg, top } in profiles {
        let _ = write!(
            out,
            "\n### {}\n\n![flame graph](profiles/{svg})\n\n| function | % |\n|---|---|\n",
            figures.join(", ")
        );
        for (name, percent) in top {
            let _ = writeln!(out, "| `{}` | {percent:.1} |", name.replace('|', "\\|"));
        }
    }
    out
}

fn times(results: &Results) -> String {
    let mut parts: Vec<String> = vec![];
    for row in &results.rows {
        let part = format!("{} {}", row.part, row.at);
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    parts.join(", ")
}

/// The report as Markdown. `minutes`: how long the last run took.
pub fn markdown(results: &Results, minutes: f64) -> String {
    let environment = &results.environment;
    let mut out = format!(
        "# Measurements\n\nWritten by `make bench`, not by hand. MB = 10^6 bytes. Ratios are to limits of the same round.\n\
         `os`: in the kernel before the acknowledgement; `disk`: on the device. CPU: of the process under test.\n\n\
         - Machine: {}; {}\n- Kernel: {}\n- Versions: {}\n- Commit: {}\n- Parts and when they were taken (UTC): {}\n\
         - The last run took {minutes:.0} min\n\n{}\n![each figure against what it must reach](figures.svg)\n",
        environment.machine,
        environment.disk,
        environment.kernel,
        environment.versions,
        environment.commit,
        times(results),
        table(results),
    );
    let missing: Vec<_> =
        figures::all().filter(|f| results.rows.iter().all(|row| row.id != f.id)).map(|f| f.id).collect();
    if !missing.is_empty() {
        out += &["\nNot taken: ", &missing.join(", "), ".\n"].concat();
    }
    out += &["\n## Limits of this machine\n\n", &limits(&results.limits)].concat();
    if !results.profiles.is_empty() {
        out += "\n## Where the time goes in figures that are missed\n";
        out += &profiles(&results.profiles);
    }
    out
}

/// Draws each figure as a part of what it must reach: 1 is "must", above is better whichever way the figure counts.
pub fn plot(results: &Results, path: &Path) -> Result<()> {
    let rows = rows(results);
    let fraction = |figure: &Figure, value: f64| match figure.better {
        Better::Higher => value / figure.must,
        Better::Lower => figure.must / value.max(f64::MIN_POSITIVE),
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
    for (i, (figure, taken)) in rows.iter().enumerate() {
        let (y, value) = (20 + 26 * i as i32, taken.median());
        let reached = figure.better.reaches(value, figure.must);
        let color = if reached { RGBColor(60, 130, 90) } else { RGBColor(190, 70, 50) };
        area.draw(&Rectangle::new([(x(0.0), y), (x(fraction(figure, value)), y + 14)], color.filled()))
            .map_err(fault)?;
        let ends = taken.samples.iter().map(|s| x(fraction(figure, *s)));
        let (low, high) = (ends.clone().min().unwrap_or(0), ends.max().unwrap_or(0));
        area.draw(&PathElement::new(vec![(low, y + 7), (high, y + 7)], BLACK)).map_err(fault)?;
        area.draw(&Text::new(format!("{} ({})", figure.title, figure.durability), (8, y), text(12))).map_err(fault)?;
    }
    let legend = "median against what must be reached (red line = 1); thin line: minimum to maximum; bars end at 3";
    area.draw(&Text::new(legend, (8, bottom + 14), text(11))).map_err(fault)?;
    area.present().map_err(fault)
}

fn fault<E: std::fmt::Display>(error: E) -> anyhow::Error {
    anyhow!("draw: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(samples: &[f64]) -> Results {
        let taken = Taken {
            id: "cold-read-waste".into(),
            part: "cold".into(),
            at: "2026-01-02 03:04".into(),
            samples: samples.to_vec(),
            cpu_s_per_gib: vec![],
            note: "direct I/O".into(),
        };
        Results { rows: vec![taken], ..Results::default() }
    }

    #[test]
    fn a_row_says_what_was_measured_against_what() {
        let text = table(&results(&[1.3, 1.0, 1.21]));
        assert!(
            text.contains("| 1.21  | 1.00 – 1.30 | 3 | ≤ 1.10 | 1.02 | – | **missed by 10 %** | direct I/O |"),
            "{text}"
        );
        assert!(table(&results(&[1.05])).contains("| ok |"));
        assert!(table(&results(&[1.0])).contains("| aim reached |"));
    }

    #[test]
    fn the_report_names_what_was_not_taken() {
        let text = markdown(&results(&[1.0]), 1.0);
        assert!(text.contains("Not taken: engine-append, amplification-os"), "{text}");
        assert!(!text.contains("cold-read-waste,"));
    }

    #[test]
    fn the_plot_is_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("figures.svg");
        plot(&results(&[1.0, 2.0]), &path).unwrap();
        assert!(std::fs::read_to_string(path).unwrap().contains("device bytes / useful byte"));
    }
}
