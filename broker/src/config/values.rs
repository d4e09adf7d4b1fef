//! Types of settings whose text has a form of its own.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use clap::ValueEnum;
use taffrail_crds::duration::Duration;
use taffrail_crds::name::{is_namespace_name, is_object_name};
use tracing_subscriber::EnvFilter;

/// Where clients are served: `grpc://HOST:PORT`. Displays as it is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddress(SocketAddr);

impl ListenAddress {
    /// Address and port.
    pub fn socket_address(&self) -> SocketAddr {
        self.0
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self(address)
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            Some(("grpc", rest)) => socket_address(rest).map(Self),
            Some((scheme, _)) => Err(format!("unknown protocol {scheme}://: only grpc:// is served")),
            None => Err("the protocol is missing: write grpc://HOST:PORT".to_owned()),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "grpc://{}", self.0)
    }
}

/// `HOST:PORT` with an IP address or `localhost`. Other names are not looked up: what a name means may change while the
/// broker runs, and with it who can reach it.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    if let Some(port) = text.strip_prefix("localhost:") {
        let port = port.parse().map_err(|_| format!("\"{port}\" is no port: 0 to 65535"))?;
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse()
        .map_err(|_| "write HOST:PORT with an IP address or localhost, such as 127.0.0.1:9094 or [::1]:9094".into())
}

/// Most characters of a Cluster's name.
const CLUSTER_NAME: usize = 40;

/// The name of a Cluster.
pub(super) fn cluster_name(text: &str) -> Result<String, String> {
    let good = text.len() <= CLUSTER_NAME && is_namespace_name(text);
    good.then(|| text.to_owned()).ok_or_else(|| "must be the name of a Cluster: a-z, 0-9 and -, at most 40".to_owned())
}

/// The name of a namespace.
pub(super) fn namespace(text: &str) -> Result<String, String> {
    is_namespace_name(text).then(|| text.to_owned()).ok_or_else(|| "cannot be the name of a namespace".to_owned())
}

/// A name or an IP address, without a port.
pub(super) fn host(text: &str) -> Result<String, String> {
    let good = is_object_name(&text.to_lowercase()) || text.parse::<std::net::IpAddr>().is_ok();
    good.then(|| text.to_owned()).ok_or_else(|| "must be a host name or an IP address, without a port".to_owned())
}

/// From 100ms to 1h.
pub(super) fn short_time(text: &str) -> Result<Duration, String> {
    let time: Duration = text.parse().map_err(|_| "write a time such as 800ms or 6s")?;
    let good = (100..=3_600_000).contains(&time.as_millis());
    if good { Ok(time) } else { Err("must be from 100ms to 1h".to_owned()) }
}

/// Bytes of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory(u64);

impl Memory {
    /// Least that a broker works with.
    pub const MIN: Self = Self(256 << 20);
    /// Most that can be asked for.
    pub const MAX: Self = Self(1 << 40);
    const UNITS: [(&'static str, u32); 8] =
        [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// An equal part for each of so many, in whole MiB.
    pub fn part(self, of: u32) -> Self {
        Self((self.0 / u64::from(of.max(1))) >> 20 << 20)
    }
}

impl FromStr for Memory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let of = |&(unit, bits): &(&str, u32)| text.strip_suffix(unit).map(|number| (number.trim_end(), bits));
        let (number, bits) = Self::UNITS.iter().find_map(of).unwrap_or((text, 0));
        let number: u64 = number.parse().map_err(|_| "write a number with KiB, MiB, GiB or TiB, such as 512MiB")?;
        let bytes = number.checked_mul(1 << bits).map(Self);
        bytes
            .filter(|bytes| (Self::MIN..=Self::MAX).contains(bytes))
            .ok_or_else(|| format!("must be {} to {}", Self::MIN, Self::MAX))
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |&&(_, bits): &&(&str, u32)| self.0.is_multiple_of(1 << bits);
        match Self::UNITS.iter().find(whole) {
            Some((unit, bits)) => write!(f, "{}{unit}", self.0 >> bits),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// For programs: one object on each line.
    Json,
}

/// A filter of log lines that is known to be well formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level(String);

impl Level {
    /// As the subscriber takes it.
    pub fn filter(&self) -> EnvFilter {
        EnvFilter::builder().parse(&self.0).expect("checked when it was made")
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str =
            "write error, warn, info, debug or trace, and exceptions as module=level, separated by commas";
        let text = text.trim();
        // The parser takes any word without a level for the name of a module, so a misspelt level would go unnoticed.
        let known = |word: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&word);
        let part = |part: &str| {
            part.split_once('=').map_or_else(|| known(part), |(target, level)| !target.is_empty() && known(level))
        };
        if !text.split(',').all(|p| part(p.trim())) || EnvFilter::builder().parse(text).is_err() {
            return Err(FORM.to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
