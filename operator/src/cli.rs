//! The command line: what each subcommand is called, takes and exits with.

mod plan;
mod validate;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::context::Settings;
use crate::lease::LeaseSettings;
use crate::run::{self, Options};
use crate::telemetry::{self, Level, LogFormat};

/// How a command ended, as its exit code; the same codes as the broker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked; an operator stopped as it was told to.
    Done = 0,
    /// It failed; the message says why.
    Failed = 1,
    /// The command line or a manifest is wrong.
    Usage = 2,
    /// What was asked about would be refused.
    Refused = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

const HELP: &str = "\
Examples:
  # The kinds, into the cluster that kubectl talks to
  taffrail-operator crd | kubectl apply --server-side -f -

  # Is this manifest right? All its faults, each with its line, without a cluster
  taffrail-operator validate -f cluster.yaml -f topics.yaml

  # What would this change restart and move? Nothing is written
  taffrail-operator plan -f cluster.yaml

  # The operator, outside of the cluster that it acts on
  KUBECONFIG=~/.kube/config taffrail-operator run --namespace taffrail --listen 127.0.0.1:8080

  # Is it ready, and if not, why? More log lines, please
  curl http://127.0.0.1:8080/readyz
  curl -X PUT -d debug http://127.0.0.1:8080/log-level

Exit codes:
  0  done; an operator that was told to stop and did
  1  failed, as the message says
  2  the command line or a manifest is wrong
  3  plan: something would be refused, or could never end by itself";

/// The brokers' image without a tag, unless another one is named.
const BROKER_IMAGE: &str = "ghcr.io/taffrail/taffrail-broker";

#[derive(Parser, Debug)]
#[command(name = "taffrail-operator", version, after_help = HELP, arg_required_else_help = true)]
/// Taffrail's operator: turns Cluster objects into brokers that run, and accepts Topic objects
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the operator. Several may run; the one that has the Lease acts.
    Run(Box<Run>),
    /// Print the definitions of the kinds (CRDs), as YAML for `kubectl apply --server-side -f -`.
    Crd,
    /// List every fault of manifests of Clusters and Topics, each with its line. Asks no API server.
    Validate(validate::Validate),
    /// Say what a change of a Cluster would restart, move, grow and refuse, before it is applied. Writes nothing.
    Plan(plan::PlanArgs),
    /// Show the version of this program.
    Version,
}

#[derive(Args, Debug)]
struct Run {
    /// Address of the HTTP server for /livez, /readyz, /metrics and /log-level. It asks for no token; the log level can
    /// only be changed from this machine.
    #[arg(long, value_name = "HOST:PORT", env = "TAFFRAIL_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,

    /// Namespace of the operator's Lease.
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = "default")]
    namespace: String,

    /// Who this operator is in its Lease and in Events; a random part is put behind it.
    #[arg(long, value_name = "NAME", env = "POD_NAME", default_value = "taffrail-operator")]
    identity: String,

    /// Name of the Lease.
    #[arg(long, value_name = "NAME", env = "TAFFRAIL_LEASE", default_value = "taffrail-operator")]
    lease: String,

    /// How long the Lease holds without being renewed: how long nobody acts when an operator dies. Whole seconds, 3s at
    /// least.
    #[arg(long, value_name = "DURATION", env = "TAFFRAIL_LEASE_DURATION", default_value = "15s",
          value_parser = lease_duration)]
    lease_duration: Duration,

    /// The brokers' image without a tag, for Clusters that name none: the Cluster's version is its tag.
    #[arg(
        long,
        value_name = "IMAGE",
        env = "TAFFRAIL_BROKER_IMAGE",
        default_value = BROKER_IMAGE
    )]
    broker_image: String,

    /// Make a ServiceMonitor for each Cluster, so that Prometheus' operator reads the brokers' metrics. Without that kind
    /// in the cluster nothing is made.
    #[arg(long, env = "TAFFRAIL_SERVICE_MONITORS")]
    service_monitors: bool,

    /// How log lines look; `auto` is text on a terminal and JSON otherwise.
    #[arg(long, value_name = "FORMAT", env = "TAFFRAIL_LOG_FORMAT", default_value = "auto")]
    log_format: LogFormat,

    /// Which log lines are written: error, warn, info, debug or trace, and exceptions by module, such as
    /// `info,taffrail_operator::topic=debug`. Can be changed at run time: PUT /log-level at the listen address.
    #[arg(long, value_name = "LEVEL", env = "TAFFRAIL_LOG_LEVEL", default_value = "info")]
    log_level: Level,
}

fn lease_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 15s"))?;
    let whole = duration.subsec_nanos() == 0 && (3..=3600).contains(&duration.as_secs());
    if whole { Ok(duration) } else { Err("must be whole seconds, from 3s to 1h".to_owned()) }
}

/// Runs the command line `arguments`, the program's name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let exit = match Cli::try_parse_from(arguments) {
        Ok(Cli { command: Command::Run(run) }) => run.run(),
        Ok(Cli { command: Command::Crd }) => print(&definitions()),
        Ok(Cli { command: Command::Validate(validate) }) => validate.run(),
        Ok(Cli { command: Command::Plan(plan) }) => plan.run(),
        Ok(Cli { command: Command::Version }) => print(&format!("taffrail-operator {}\n", env!("CARGO_PKG_VERSION"))),
        // Help and version are such an "error" too; clap knows where each is written and its code.
        Err(error) => error.exit(),
    };
    exit.into()
}

/// All definitions as one stream of YAML documents.
fn definitions() -> String {
    taffrail_crds::yaml_files().iter().fold(String::new(), |all, (_, text)| all + "---\n" + text)
}

/// Prints a result. A reader that is gone (`| head`) is no failure.
fn print(text: &str) -> Exit {
    use std::io::Write as _;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Exit::Failed,
        _ => Exit::Done,
    }
}

impl Run {
    fn run(self) -> Exit {
        let log_level = telemetry::start(self.log_format, self.log_level.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let outcome = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
            let outcome = runtime.block_on(Box::pin(run::run(self.options(), log_level)));
            // Requests under way are of no use any more.
            runtime.shutdown_background();
            outcome
        });
        match outcome {
            Ok(()) => Exit::Done,
            Err(error) => {
                tracing::error!("{error:#}");
                Exit::Failed
            }
        }
    }

    fn options(&self) -> Options {
        let random = uuid::Uuid::new_v4().simple().to_string();
        let lease = LeaseSettings {
            namespace: self.namespace.clone(),
            name: self.lease.clone(),
            identity: format!("{}-{}", self.identity, &random[..8]),
            duration: self.lease_duration,
        };
        let settings = Settings { broker_image: self.broker_image.clone(), service_monitors: self.service_monitors };
        Options { listen: self.listen, lease, settings }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed_and_every_option_is_explained() {
        let mut command = Cli::command();
        command.clone().debug_assert();
        let run = command.find_subcommand_mut("run").unwrap();
        for arg in run.get_arguments().filter(|arg| arg.get_id() != "help") {
            assert!(arg.get_help().is_some_and(|help| help.to_string().len() > 15), "{} has no help", arg.get_id());
        }
    }

    #[test]
    fn a_lease_holds_for_whole_seconds() {
        assert_eq!(lease_duration("15s"), Ok(Duration::from_secs(15)));
        for wrong in ["1s", "1500ms", "2h", "x"] {
            assert!(lease_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn all_definitions_are_printed() {
        assert_eq!(definitions().matches("kind: CustomResourceDefinition").count(), 5);
    }
}
