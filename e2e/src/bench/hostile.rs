//! What hostile clients can do: memory and an honest producer's latency.

use anyhow::Result;

use super::figures::Figures;
use super::sitting::Sitting;
use crate::hostile::{MEMORY_LIMIT, endure};
use crate::loop_volume::root;

/// The rows about hostile clients. They need root, and are left out without.
pub async fn run(sitting: &Sitting, figures: &mut Figures) -> Result<()> {
    if !root()? {
        return Ok(());
    }
    for _ in 0..sitting.long_rounds() {
        let dir = sitting.folder("hostile")?;
        let outcome = endure(&dir).await?;
        std::fs::remove_dir_all(dir)?;
        let note = format!("{} MiB at most", outcome.resident >> 20);
        figures.add("hostile-memory", outcome.resident as f64 / MEMORY_LIMIT as f64, &note);
        let (quiet, attacked) = (outcome.quiet.as_secs_f64() * 1e3, outcome.attacked.as_secs_f64() * 1e3);
        let note = format!("{attacked:.2} of {quiet:.2} ms, linger 0, 330 records/s");
        figures.add("hostile-p99", attacked / quiet, &note);
    }
    Ok(())
}
