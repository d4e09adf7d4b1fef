//! Clients that abuse a broker on purpose (see `taffrail_e2e::hostile`), for a test and the bench. Ends by itself.

use anyhow::Result;
use clap::Parser;
use taffrail_e2e::hostile::{Role, run};

#[derive(Debug, Parser)]
struct Options {
    /// Host and port of a broker on this machine.
    #[arg(long)]
    broker: String,
    #[command(subcommand)]
    role: Role,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let options = Options::parse();
    run(options.role, &options.broker).await
}
