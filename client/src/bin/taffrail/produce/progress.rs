//! A progress bar on a terminal, and a summary at the end.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use taffrail_client::ProducerMetrics;

use crate::output;

pub(super) struct Progress {
    bar: ProgressBar,
    quiet: bool,
    begin: Instant,
    bytes: u64,
}

impl Progress {
    /// Of an input of `size` bytes, where that is known.
    pub(super) fn new(size: Option<u64>, quiet: bool) -> Self {
        let bar = size.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let template = match size {
            Some(_) => "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
            None => "{spinner} {bytes}, {bytes_per_sec}",
        };
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        if quiet || !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        } else {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self { bar, quiet, begin: Instant::now(), bytes: 0 }
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.bar.inc(bytes as u64);
    }

    /// Takes the bar away and says what was done.
    pub(super) fn finish(&self, topic: &str, metrics: &ProducerMetrics) {
        self.bar.finish_and_clear();
        if self.quiet {
            return;
        }
        let seconds = self.begin.elapsed().as_secs_f64();
        let (records, size) = (metrics.records, output::bytes(self.bytes));
        let rate = metrics.records as f64 / seconds;
        eprint!("{records} records ({size}) to {topic} in {seconds:.1} s, {rate:.0} records/s");
        eprint!("; {} batches, {} sent again, {} records failed", metrics.batches, metrics.retries, metrics.errors);
        eprintln!("; longest wait for an answer {:.1} s", metrics.latency_max.as_secs_f64());
    }
}
