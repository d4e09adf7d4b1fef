//! What an application gets through the client library: many small records, and the time from produce to consume.

use anyhow::{Context, Result};

use super::figures::Figures;
use super::sitting::{Sitting, client_bench};

/// The rows about small records and tail latency.
pub fn run(sitting: &Sitting, figures: &mut Figures) -> Result<()> {
    for _ in 0..sitting.rounds {
        let broker = sitting.broker("client", &[("small", 16, ""), ("tail", 1, "")], &[])?;
        client_bench(sitting, &[], &broker, &["produce", "small", "-n", "500000"])?;
        let one = client_bench(sitting, &["small-one"], &broker, &["produce", "small", "-n", "5000000"])?;
        figures.add(
            "small-one",
            one.records_per_second / 1e6,
            "client and broker on the same cores, idempotent, acks all",
        );
        let many = client_bench(sitting, &["small-many"], &broker, &["produce", "small", "-n", "8000000", "-p", "4"])?;
        figures.add(
            "small-many",
            many.records_per_second / 1e6,
            "client and broker on the same cores, idempotent, acks all",
        );
        let tail = client_bench(
            sitting,
            &["tail-p99", "tail-p50"],
            &broker,
            &["latency", "tail", "--rate", "1000", "--duration", "10s"],
        )?;
        let latency = tail.latency_ms.context("no latency")?;
        figures.add("tail-p50", latency.p50, "linger 0, one partition, through the client library");
        figures.add("tail-p99", latency.p99, "linger 0, one partition, through the client library");
        sitting.discard(broker)?;
    }
    Ok(())
}
