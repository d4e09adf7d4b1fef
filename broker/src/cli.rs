//! The command line: what each subcommand is called, takes and exits with. It parses and prints; the work is done in
//! [`crate::broker`] and [`crate::storage`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, FromArgMatches as _, Subcommand, ValueEnum, ValueHint};

use crate::config::layers::{Effective, as_text, of_other_mode, resolve};
use crate::config::{Fault, Mode};

mod directory;
mod process;

/// How a command ended, as its exit code. Part of the interface: scripts and probes rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked; a broker stopped as it was told to.
    Done = 0,
    /// It failed; the message says why.
    Failed = 1,
    /// The command line, the configuration or the manifest is wrong.
    Usage = 2,
    /// Another process has the data directory.
    InUse = 3,
    /// Stored data is damaged.
    Damaged = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done; a broker that was told to stop and did
  1  failed, as the message says
  2  the command line, the configuration or the manifest is wrong
  3  another process has the data directory
  4  stored data is damaged
  130, 143  ended at once by a second SIGINT or SIGTERM; nothing acknowledged is lost";

const EXAMPLES: &str = "\
Examples:
  # A broker on this machine, with data in ./taffrail-data
  taffrail-broker standalone

  # With topics from a file, as kubectl apply would take it; applied again when it changes
  taffrail-broker standalone --data-dir /var/lib/taffrail --manifest topics.yaml

  # For other machines: callers must show a token
  taffrail-broker standalone --listen grpc://0.0.0.0:9094 --token-file /etc/taffrail/tokens

  # A cluster of three brokers in this process, with data in ./taffrail-dev
  taffrail-broker dev

  # As a broker of a cluster, as the operator starts it in Kubernetes
  taffrail-broker cluster --config /etc/taffrail/broker.yaml

  # What is it configured to, and where does each value come from?
  taffrail-broker config --config broker.yaml

  # Is it ready, and if not, why? More log lines, please
  curl http://127.0.0.1:9095/readyz
  curl -X PUT -d debug http://127.0.0.1:9095/log-level
";

const DEV: &str = "\
The brokers are those of a cluster in every respect: topics have replicas, which take over from each other. Their
metadata is in the data directory instead of Kubernetes, and topics are accepted as the operator does it.

SIGUSR1 kills a broker, the next one each time, as a crash would; SIGUSR2 starts those again that were killed.";

const SETTINGS: &str = "\
Each option can also be set by an environment variable, TAFFRAIL_ and its name in capitals
(TAFFRAIL_DATA_DIR; lists are separated by commas), or in the file that --config names, under
the option's name (data-dir: /var/lib/taffrail). A flag wins over the environment, that over
the file. \"taffrail-broker config\" shows what is in force and where it comes from.

SIGTERM or SIGINT: requests under way are finished, for 20 s at most, and the data is closed.
A second one, a second later or more, ends the process at once; acknowledged records are safe then too.";

#[derive(Subcommand, Debug)]
enum Tool {
    /// Show what a data directory holds. No broker may be using it.
    Inspect(directory::Inspect),
    /// Read every byte of a data directory and check it. No broker may be using it. Exits with 4 if something is damaged.
    Verify(directory::Verify),
    /// Make a data directory with a damaged write-ahead log usable again, at the price of what cannot be read.
    Recover(directory::Recover),
    /// Show the version of this program and of the data format.
    Version(Version),
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs: one JSON document.
    Json,
}

#[derive(clap::Args, Debug)]
struct Version {
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

fn command() -> Command {
    let file = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_hint(ValueHint::FilePath)
        .value_parser(clap::value_parser!(PathBuf))
        .help("Configuration file (YAML); also TAFFRAIL_CONFIG");
    let configured =
        |command: Command, about: &'static str| as_text(command).about(about).arg(file.clone()).after_help(SETTINGS);
    let mode = Arg::new("mode")
        .long("mode")
        .value_name("MODE")
        .value_parser(clap::value_parser!(Mode))
        .default_value(Mode::default().name())
        .help("Whose settings: those of \"taffrail-broker standalone\", of \"cluster\" or of \"dev\"");
    let standalone = "Run a broker that needs nothing else: no Kubernetes, no other broker";
    let dev = "Run all brokers of a cluster in this process, for development: no Kubernetes";
    let cluster = "Run a broker of a cluster, as Kubernetes knows it";
    let config = "Show the configuration in force and where each value comes from, as a configuration file";
    let dev = configured(Mode::Dev.augment(Command::new("dev")), dev).after_help(format!("{DEV}\n\n{SETTINGS}"));
    let root = Command::new("taffrail-broker")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Taffrail's broker: stores partitions of topics and serves them by gRPC")
        .after_help(format!("{EXAMPLES}\n{EXIT_CODES}"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(configured(Mode::Standalone.augment(Command::new("standalone")), standalone))
        .subcommand(configured(Mode::Cluster.augment(Command::new("cluster")), cluster))
        .subcommand(dev)
        .subcommand(configured(of_all(Command::new("config")), config).arg(mode));
    Tool::augment_subcommands(root)
}

/// `command` with the settings of all modes.
fn of_all(command: Command) -> Command {
    Mode::ALL.into_iter().fold(command, |command, mode| {
        let more = mode.augment(Command::new(mode.name()));
        let known: Vec<_> = command.get_arguments().map(|arg| arg.get_id().clone()).collect();
        command.args(more.get_arguments().filter(|arg| !known.contains(arg.get_id())))
    })
}

/// Runs the command line `arguments`, the program's name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        // Help and version are such an "error" too; clap knows where each is written and its code.
        Err(error) => error.exit(),
    };
    let exit = match matches.subcommand() {
        Some(("standalone", matches)) => run_broker(Mode::Standalone, matches),
        Some(("cluster", matches)) => run_broker(Mode::Cluster, matches),
        Some(("dev", matches)) => run_broker(Mode::Dev, matches),
        Some(("config", matches)) => show_config(matches),
        _ => Tool::from_arg_matches(&matches).map_or_else(|error| error.exit(), Tool::run),
    };
    exit.into()
}

impl Tool {
    fn run(self) -> Exit {
        match self {
            Self::Inspect(inspect) => inspect.run(),
            Self::Verify(verify) => verify.run(),
            Self::Recover(recover) => recover.run(),
            Self::Version(version) => version.run(),
        }
    }
}

fn run_broker(mode: Mode, matches: &ArgMatches) -> Exit {
    effective(mode, matches).map_or_else(|exit| exit, |effective| process::run(&effective))
}

fn show_config(matches: &ArgMatches) -> Exit {
    let mode = matches.get_one::<Mode>("mode").copied().unwrap_or_default();
    let foreign = of_other_mode(mode, matches);
    if !foreign.is_empty() {
        return wrong(mode, &foreign);
    }
    effective(mode, matches).map_or_else(|exit| exit, |effective| print(&effective.to_yaml()))
}

fn effective(mode: Mode, matches: &ArgMatches) -> Result<Effective, Exit> {
    let file = matches.get_one::<PathBuf>("config").cloned();
    let file = file.or_else(|| std::env::var_os("TAFFRAIL_CONFIG").filter(|v| !v.is_empty()).map(PathBuf::from));
    resolve(mode, matches, |name| std::env::var(name).ok(), file.as_deref()).map_err(|faults| wrong(mode, &faults))
}

fn wrong(mode: Mode, faults: &[Fault]) -> Exit {
    for fault in faults {
        eprintln!("error: {fault}");
    }
    eprintln!(
        "{} wrong in the configuration; \"taffrail-broker {} --help\" explains each setting",
        count(faults),
        mode.name()
    );
    Exit::Usage
}

fn count<T>(faults: &[T]) -> String {
    match faults.len() {
        1 => "1 thing is".to_owned(),
        n => format!("{n} things are"),
    }
}

/// Prints a result. A reader that is gone (`| head`) is no failure.
fn print(text: &str) -> Exit {
    use std::io::Write as _;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Exit::Failed,
        _ => Exit::Done,
    }
}

impl Version {
    fn run(&self) -> Exit {
        let (version, format) = (env!("CARGO_PKG_VERSION"), crate::storage::FORMAT_VERSION);
        match self.output {
            Output::Table => print(&format!("taffrail-broker {version} (data format {format})\n")),
            Output::Json => {
                let document = serde_json::json!({ "version": version, "dataFormatVersion": format });
                print(&format!("{document}\n"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn every_setting_is_explained_in_the_help_text() {
        for mode in Mode::ALL {
            let mut command = command();
            let help = command.find_subcommand_mut(mode.name()).unwrap().render_long_help().to_string();
            for arg in mode.augment(Command::new("x")).get_arguments() {
                let flag = format!("--{}", arg.get_long().unwrap());
                assert!(help.contains(&flag), "{flag} in {help}");
                assert!(arg.get_help().is_some_and(|help| help.to_string().len() > 15), "{flag} has no help");
            }
            assert!(help.contains("TAFFRAIL_DATA_DIR"));
        }
    }

    #[test]
    fn config_shows_the_settings_of_the_mode_that_is_asked_for() {
        let given = |arguments: &[&str]| {
            let matches = command().try_get_matches_from([&["taffrail-broker", "config"], arguments].concat()).unwrap();
            let matches = matches.subcommand().unwrap().1.clone();
            let mode = matches.get_one::<Mode>("mode").copied().unwrap();
            of_other_mode(mode, &matches).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(given(&["--mode", "cluster", "--cluster", "main"]), [""; 0]);
        assert_eq!(given(&["--mode", "dev", "--brokers", "3", "--manifest=x", "--advertise-host=h"]), [""; 0]);
        assert_eq!(given(&["--brokers", "3"]), ["--brokers is a setting of \"taffrail-broker dev\""]);
        assert_eq!(given(&["--cluster", "main"]), ["--cluster is a setting of \"taffrail-broker cluster\""]);
        assert_eq!(
            given(&["--mode=cluster", "--manifest=x"]),
            ["--manifest is a setting of \"taffrail-broker standalone\""]
        );
    }
}
