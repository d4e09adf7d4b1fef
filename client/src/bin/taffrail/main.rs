//! `taffrail`, the command line: topics, records, groups and offsets, for people and for programs.
//!
//! Tables for people, `-o json` for programs; records go to standard output and everything else to standard error.

mod bench;
mod cluster;
mod consume;
mod exit;
mod group;
mod offsets;
mod output;
mod produce;
mod replicas;
mod sibling;
mod topic;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use taffrail_client::{Client, ClientConfig};

use crate::output::Format;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const EXAMPLES: &str = "\
Examples:
  taffrail dev
  taffrail topic create orders --partitions 8 --config retention=7d
  echo 'hello' | taffrail produce orders
  taffrail produce orders --json --key-field customer --file orders.jsonl
  taffrail consume orders --from earliest
  taffrail consume orders --follow -o json | jq .value
  taffrail consume orders --group billing --follow
  taffrail group describe billing --watch

Exit codes:
  0  done
  1  failed; standard error says why and what to do
  2  the command line is wrong
  3  no such topic, partition, offset or group
  4  no broker answered in time; the same command may succeed later
  5  the broker does not know you, or you may not do this";

/// Talks to a Taffrail broker: makes topics, writes and reads records.
#[derive(Debug, Parser)]
#[command(name = "taffrail", version, after_help = EXAMPLES, max_term_width = 110)]
struct Cli {
    /// Brokers to connect to first, host:port, several with commas.
    #[arg(
        short,
        long,
        global = true,
        env = "TAFFRAIL_BROKER",
        default_value = "127.0.0.1:9094",
        value_name = "HOST:PORT"
    )]
    broker: String,

    /// File with the bearer token to show to brokers; read again when it changes.
    #[arg(long, global = true, env = "TAFFRAIL_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes, shows, changes and removes topics.
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// Writes records, one for each line of standard input or of a file.
    Produce(produce::Produce),
    /// Reads records.
    Consume(consume::Consume),
    /// Shows, resets and removes consumer groups.
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// Shows where partitions begin and end, or which offset a moment has.
    Offsets(offsets::Offsets),
    /// Shows the cluster's brokers, and brings back what is lost of a cluster on Kubernetes.
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Says what a change of a Cluster on Kubernetes would restart, move and refuse, before it is applied. Runs
    /// `taffrail-operator plan`, which talks to the API server as kubectl does; `taffrail plan --help` is its help.
    #[command(disable_help_flag = true)]
    Plan {
        /// What `taffrail-operator plan` takes, such as -f cluster.yaml.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Measures throughput and latency against a broker.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Runs a cluster of three brokers on this machine, by "taffrail-broker dev", which takes the arguments.
    Dev {
        /// Arguments of "taffrail-broker dev", such as --brokers 5; --help lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Prints a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Prints the versions of this program and, if one answers, of the broker.
    Version {
        /// How to print.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Completions { shell } = cli.command {
        clap_complete::generate(shell, &mut Cli::command(), "taffrail", &mut io::stdout());
        return ExitCode::SUCCESS;
    }
    let sibling = match &cli.command {
        Command::Plan { arguments } => Some(("taffrail-operator", "plan", arguments)),
        Command::Dev { arguments } => Some(("taffrail-broker", "dev", arguments)),
        _ => None,
    };
    if let Some((program, command, arguments)) = sibling {
        return exit::report(&sibling::become_program(program, command, arguments));
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&error.into()),
    };
    let result = runtime.block_on(run(cli));
    // A blocking read of standard input may be left behind: it must not hold up the end.
    runtime.shutdown_background();
    result.map_or_else(|error| exit::report(&error), |()| ExitCode::SUCCESS)
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let mut config = ClientConfig::new(&cli.broker).client_id("taffrail-cli");
    if let Some(path) = cli.token_file {
        config = config.token_file(path);
    }
    let client = Client::connect(config.clone())?;
    match cli.command {
        Command::Topic(command) => command.run(&client).await,
        Command::Produce(command) => command.run(&client).await,
        Command::Consume(command) => command.run(&client).await,
        Command::Group(command) => command.run(&client).await,
        Command::Offsets(command) => command.run(&client).await,
        Command::Cluster(command) => command.run(&client, &config).await,
        Command::Bench(command) => command.run(&client).await,
        Command::Plan { .. } | Command::Dev { .. } | Command::Completions { .. } => Ok(()),
        Command::Version { output } => version(&client, output).await,
    }
}

async fn version(client: &Client, output: Format) -> anyhow::Result<()> {
    let ours = env!("CARGO_PKG_VERSION");
    let patience = std::time::Duration::from_secs(2);
    let broker = tokio::time::timeout(patience, client.metadata(&[])).await;
    let broker = broker.ok().and_then(Result::ok).map(|metadata| metadata.version);
    match output {
        Format::Json => output::json(&serde_json::json!({ "taffrail": ours, "broker": broker })),
        Format::Table => {
            println!("taffrail {ours}\nbroker   {}", broker.as_deref().unwrap_or("(none answers)"));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
