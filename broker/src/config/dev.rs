//! Settings of a cluster in one process.

use std::net::{IpAddr, SocketAddr};

use clap::Args;

use super::{Config, Fault, Memory, Source, values};

/// Ports of the next broker are so much higher.
const NEXT: u16 = 10;
/// Least memory of each broker.
const MIN_MEMORY: u64 = 128 << 20;

/// What a cluster in one process needs to know beside [`Config`].
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct DevConfig {
    /// Number of brokers, 1 to 9. It can rise from one start to the next. Broker N has its data in `broker-N` of the data
    /// directory, and ports that are 10 * N higher than those of broker 0.
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(i32).range(1..=9))]
    pub brokers: i32,

    /// Name or IP address at which clients reach the brokers, without a port. Without this option: the address of --listen,
    /// or 127.0.0.1 where that is all addresses of this machine.
    #[arg(long, value_name = "HOST", value_parser = values::host)]
    pub advertise_host: Option<String>,

    /// Address at which broker 0 is reached by the others. They are trusted: an address of this machine only.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9093", value_parser = values::socket_address)]
    pub internal_listen: SocketAddr,
}

/// Where one of the brokers listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For clients.
    pub listen: SocketAddr,
    /// For probes and metrics.
    pub admin: SocketAddr,
    /// For the other brokers.
    pub internal: SocketAddr,
}

impl DevConfig {
    /// Of each broker; nothing if there are no such ports. Port 0 stays what it is: any that is free.
    pub fn addresses(&self, config: &Config) -> Option<Vec<Addresses>> {
        let listen = config.listen.first()?.socket_address();
        let of = |n: i32| {
            Some(Addresses {
                listen: higher(listen, n)?,
                admin: higher(config.admin_listen, n)?,
                internal: higher(self.internal_listen, n)?,
            })
        };
        (0..self.brokers).map(of).collect()
    }

    /// Where clients are told that brokers are.
    pub fn host(&self, config: &Config) -> String {
        let listen = config.listen.first().map(|listen| listen.socket_address().ip());
        match (&self.advertise_host, listen) {
            (Some(host), _) => host.clone(),
            (None, Some(IpAddr::V4(ip))) if !ip.is_unspecified() => ip.to_string(),
            // An address with colons would need brackets.
            (None, Some(IpAddr::V6(ip))) if !ip.is_unspecified() => "localhost".to_owned(),
            (None, _) => "127.0.0.1".to_owned(),
        }
    }

    /// Memory of each broker.
    pub fn memory(&self, config: &Config) -> Memory {
        config.memory_limit.part(self.brokers.unsigned_abs())
    }

    /// What is wrong with values that are right each for itself.
    pub(super) fn conflicts(&self, config: &Config, origin: &impl Fn(&str) -> Source) -> Vec<Fault> {
        let fault = |name: &str, value: String, message: String| Fault::Value {
            name: name.to_owned(),
            value,
            origin: origin(name),
            message,
        };
        let mut faults = Vec::new();
        if config.listen.len() != 1 {
            let given: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
            let message = "one address is given, that of broker 0: the next broker's port is 10 higher";
            faults.push(fault("listen", given.join(", "), message.to_owned()));
        }
        if !self.internal_listen.ip().is_loopback() {
            let message = "brokers trust each other without a token: give an address such as 127.0.0.1:9093";
            faults.push(fault("internal-listen", self.internal_listen.to_string(), message.to_owned()));
        }
        if self.memory(config).bytes() < MIN_MEMORY {
            let message = format!("must be 128MiB for each of {} brokers at least", self.brokers);
            faults.push(fault("memory-limit", config.memory_limit.to_string(), message));
        }
        match self.addresses(config) {
            None => {
                let message = "with ports that are 10 higher for each broker, there are not enough: begin lower";
                faults.push(fault("brokers", self.brokers.to_string(), message.to_owned()));
            }
            Some(addresses) => faults.extend(shared(&addresses, origin)),
        }
        faults
    }
}

fn higher(first: SocketAddr, broker: i32) -> Option<SocketAddr> {
    let port = match first.port() {
        0 => 0,
        port => port.checked_add(NEXT.checked_mul(u16::try_from(broker).ok()?)?)?,
    };
    Some(SocketAddr::new(first.ip(), port))
}

/// Addresses that two servers would have.
fn shared(addresses: &[Addresses], origin: &impl Fn(&str) -> Source) -> Vec<Fault> {
    let servers = addresses
        .iter()
        .flat_map(|at| [("admin-listen", at.admin), ("internal-listen", at.internal), ("listen", at.listen)]);
    let (mut seen, mut faults) = (Vec::new(), Vec::new());
    for (name, address) in servers {
        if address.port() != 0 && seen.contains(&address) {
            faults.push(Fault::SameAddress { address, origin: origin(name) });
        }
        seen.push(address);
    }
    faults
}
