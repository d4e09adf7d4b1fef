//! 10,000 idle connections and 200 hostile clients: memory stays within its limit and an honest producer hardly notices.

use anyhow::{Result, ensure};
use taffrail_e2e::hostile::{MEMORY_LIMIT, endure};
use taffrail_e2e::loop_volume::root;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_and_two_hundred_hostile_clients_neither_fill_memory_nor_starve_an_honest_one() -> Result<()>
{
    if !root()? {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let outcome = endure(dir.path()).await?;
    let resident = outcome.resident >> 20;
    ensure!(outcome.resident <= MEMORY_LIMIT / 10 * 11, "the broker took {resident} MiB of {}", MEMORY_LIMIT >> 20);
    let (quiet, attacked) = (outcome.quiet, outcome.attacked);
    ensure!(attacked <= quiet * 2, "an honest producer's p99 went from {quiet:?} to {attacked:?}");
    Ok(())
}
