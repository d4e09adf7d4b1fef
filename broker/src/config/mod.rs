//! The configuration: one struct for command line, environment and file. The doc comment of a field is its help text and
//! its reference.
//!
//! A value is taken from the flag, else from the environment variable `TAFFRAIL_` + the name in capitals (`--data-dir`:
//! `TAFFRAIL_DATA_DIR`; several values are separated by commas), else from the file that `--config` names (YAML, the same
//! names as keys), else it is the default. [`layers`] does that and keeps where each value came from; all faults are told
//! at once.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use taffrail_crds::duration::Duration;

mod cluster;
mod dev;
pub mod layers;
mod values;

pub use cluster::ClusterConfig;
pub use dev::{Addresses, DevConfig};
pub use values::{Level, ListenAddress, LogFormat, Memory};

/// How a broker runs, which decides what can be set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Alone: no Kubernetes, no other broker.
    #[default]
    Standalone,
    /// As a broker of a cluster, in Kubernetes.
    Cluster,
    /// All brokers of a cluster, in this process.
    Dev,
}

impl Mode {
    /// All modes. Where several have a setting, it is named as one of the first.
    pub const ALL: [Self; 3] = [Self::Standalone, Self::Cluster, Self::Dev];

    /// The subcommand.
    pub fn name(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Cluster => "cluster",
            Self::Dev => "dev",
        }
    }

    /// `command` with all settings of the mode.
    pub fn augment(self, command: clap::Command) -> clap::Command {
        let command = Config::augment_args(command);
        match self {
            Self::Standalone => Alone::augment_args(command),
            Self::Cluster => ClusterConfig::augment_args(command),
            Self::Dev => DevConfig::augment_args(Alone::augment_args(command))
                .mut_arg("data_dir", |data_dir| data_dir.default_value(DEV_DATA_DIR)),
        }
    }
}

/// Where the brokers of one process have their data: not where a broker that is alone has it.
const DEV_DATA_DIR: &str = "taffrail-dev";

/// Settings of those who make topics by themselves: where there is no Kubernetes.
#[derive(Args, Clone, Debug)]
struct Alone {
    /// File with Topic objects (YAML, as for `kubectl apply`), or directory of such files. They are applied at the start
    /// and again whenever a file changes. A topic that is no longer in it stays.
    #[arg(long, value_name = "PATH")]
    manifest: Option<PathBuf>,
}

/// Everything that can be set. What only one [`Mode`] has stands behind the rest.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Directory of the data; made when it is not there. One broker at a time can use it.
    #[arg(long, value_name = "DIR", default_value = "taffrail-data")]
    pub data_dir: PathBuf,

    /// Address at which clients are served, `grpc://HOST:PORT`; may be given several times. HOST is an IP address or
    /// `localhost`, port 0 takes a free one. An address that other machines can reach wants --token-file.
    #[arg(long, value_name = "URL", default_value = "grpc://127.0.0.1:9094")]
    pub listen: Vec<ListenAddress>,

    /// Address of the HTTP server for /livez, /readyz, /metrics and /log-level. It asks for no token: what it shows is
    /// names of topics and numbers, and the log level can only be changed from this machine.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9095", value_parser = values::socket_address)]
    pub admin_listen: SocketAddr,

    /// Memory that the broker may take, 256MiB to 1TiB: a number with KiB, MiB, GiB or TiB. Its parts are split by fixed
    /// shares; clients beyond are made to wait.
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    pub memory_limit: Memory,

    /// File of tokens that callers must present, one `TOKEN ROLE` on each line; the roles are admin, client, producer,
    /// consumer and viewer. It is read again when it changes.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Serve without tokens also on addresses that other machines can reach: whoever gets there may read, write and
    /// delete everything.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", action = clap::ArgAction::Set)]
    pub allow_anonymous: bool,

    /// Partitions of a topic that is made without a number, 1 to 10,000.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub default_partitions: i32,

    /// How log lines look; `auto` is human on a terminal and JSON otherwise.
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub log_format: LogFormat,

    /// Which log lines are written: error, warn, info, debug or trace, and exceptions by module, such as
    /// `info,taffrail_broker::storage=debug`. Can be changed at run time: PUT /log-level at the admin address.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: Level,

    /// Topic objects, where there is no Kubernetes.
    #[arg(skip)]
    pub manifest: Option<PathBuf>,

    /// Set: a broker of a cluster.
    #[arg(skip)]
    pub cluster: Option<ClusterConfig>,

    /// Set: all brokers of a cluster.
    #[arg(skip)]
    pub dev: Option<DevConfig>,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Flag(String),
    /// This environment variable.
    Environment(String),
    /// This place of the configuration file.
    File(PathBuf, usize),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::Environment(variable) => f.write_str(variable),
            Self::File(file, line) => write!(f, "{}:{line}", file.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A value is not one.
    #[error("{source}: {name} \"{value}\": {message}", source = .origin)]
    Value {
        /// Name of the setting.
        name: String,
        /// As it was given.
        value: String,
        /// Where.
        origin: Source,
        /// What it should be.
        message: String,
    },
    /// A value that has no default is not there.
    #[error("{name} is not set: give --{name}, or {variable} in the environment, or {name} in the configuration file")]
    Missing {
        /// Name of the setting.
        name: String,
        /// Its environment variable.
        variable: String,
    },
    /// A flag of another mode.
    #[error("--{name} is a setting of \"taffrail-broker {mode}\"", mode = .mode.name())]
    OtherMode {
        /// Name of the setting.
        name: String,
        /// Whose it is.
        mode: Mode,
    },
    /// A time that has to be shorter than another.
    #[error("{origin}: {shorter} \"{value}\": must be shorter than {longer}, which is \"{than}\"")]
    NotShorter {
        /// Name of the setting.
        shorter: &'static str,
        /// Its value.
        value: Duration,
        /// Name of the other.
        longer: &'static str,
        /// Its value.
        than: Duration,
        /// Where the first was set.
        origin: Source,
    },
    /// The file has a key that is no setting.
    #[error("{}:{line}: there is no setting \"{key}\"{hint}", file.display())]
    UnknownKey {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// As written.
        key: String,
        /// A guess at what was meant, or nothing.
        hint: String,
    },
    /// The file cannot be read, or is no YAML mapping of settings.
    #[error("{}{}: {message}", file.display(), line.map_or(String::new(), |l| format!(":{l}")))]
    File {
        /// The file.
        file: PathBuf,
        /// From 1, where it is known.
        line: Option<usize>,
        /// What is wrong.
        message: String,
    },
    /// A listener that anybody could use.
    #[error(
        "{origin}: {address} can be reached from other machines and nobody has to show a token: give --token-file FILE, \
         or listen on 127.0.0.1 only, or say --allow-anonymous if everybody who can reach it may read, write and delete"
    )]
    Exposed {
        /// The listener.
        address: ListenAddress,
        /// Where it was set.
        origin: Source,
    },
    /// Two servers on one address.
    #[error("{origin}: {address} is given twice; each listener and the admin server need an address of their own")]
    SameAddress {
        /// The address.
        address: SocketAddr,
        /// Where the second was set.
        origin: Source,
    },
}

impl Config {
    /// What is wrong with values that are right each for itself.
    fn conflicts(&self, origin: impl Fn(&str) -> Source) -> Vec<Fault> {
        let open = self.token_file.is_none() && !self.allow_anonymous;
        let exposed = self.listen.iter().filter(|l| open && !l.socket_address().ip().is_loopback());
        let mut faults: Vec<Fault> =
            exposed.map(|&address| Fault::Exposed { address, origin: origin("listen") }).collect();
        if let Some(dev) = &self.dev {
            faults.extend(dev.conflicts(self, &origin));
            return faults;
        }
        let mut seen = vec![self.admin_listen];
        if let Some(cluster) = &self.cluster {
            faults.extend(cluster.conflicts(&origin));
            let address = cluster.internal_listen;
            if address.port() != 0 && seen.contains(&address) {
                faults.push(Fault::SameAddress { address, origin: origin("internal-listen") });
            }
            seen.push(address);
        }
        for address in self.listen.iter().map(ListenAddress::socket_address) {
            if address.port() != 0 && seen.contains(&address) {
                faults.push(Fault::SameAddress { address, origin: origin("listen") });
            }
            seen.push(address);
        }
        faults
    }
}

#[cfg(test)]
mod tests;
