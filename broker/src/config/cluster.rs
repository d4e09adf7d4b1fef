//! Settings of a broker in a cluster. In Kubernetes the operator sets them all.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use taffrail_crds::duration::Duration;

use super::{Fault, Source, values};

/// What a broker in a cluster needs to know beside [`Config`](super::Config).
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Name of the Cluster object that this broker belongs to. There is no default.
    #[arg(long, value_name = "NAME", value_parser = values::cluster_name)]
    pub cluster: String,

    /// Namespace of the Cluster object. There is no default.
    #[arg(long, value_name = "NAMESPACE", value_parser = values::namespace)]
    pub namespace: String,

    /// Number of this broker, unique in its cluster; in Kubernetes that of its pod. It stays with the data directory.
    /// There is no default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub broker_id: i32,

    /// Name or IP address at which clients in the Kubernetes cluster reach this broker, without a port, and the other
    /// brokers where --internal-host is not set. There is no default.
    #[arg(long, value_name = "HOST", value_parser = values::host)]
    pub advertise_host: String,

    /// Name or IP address at which the other brokers reach this broker, without a port; in Kubernetes the address of its
    /// pod, since a name leads to the pod before for a while. Without this option: --advertise-host.
    #[arg(long, value_name = "HOST", value_parser = values::host)]
    pub internal_host: Option<String>,

    /// Address for the other brokers of the cluster.
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:9093", value_parser = values::socket_address)]
    pub internal_listen: SocketAddr,

    /// File with the name of the zone that this broker's machine is in. The broker waits for it for up to 10 s, goes on
    /// without, and follows its changes. Without this option the broker has no zone.
    #[arg(long, value_name = "FILE")]
    pub zone_file: Option<PathBuf>,

    /// How long a broker may be silent before the controller takes its partitions away, 100ms to 1h.
    #[arg(long, value_name = "TIME", default_value = "6s", value_parser = values::short_time)]
    pub session_timeout: Duration,

    /// How long the controller's Lease holds without being renewed, 100ms to 1h.
    #[arg(long, value_name = "TIME", default_value = "6s", value_parser = values::short_time)]
    pub lease_duration: Duration,

    /// How long after its last renewal the controller stops to write, 100ms to 1h; shorter than --lease-duration.
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = values::short_time)]
    pub renew_deadline: Duration,

    /// How often the Lease is renewed, and asked for, 100ms to 1h; shorter than --renew-deadline.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = values::short_time)]
    pub retry_period: Duration,

    /// File that says where the Kubernetes API is and who this is. Without it: the service account of the pod, otherwise
    /// what $KUBECONFIG names.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

impl ClusterConfig {
    /// What is wrong with values that are right each for itself.
    pub(super) fn conflicts(&self, origin: impl Fn(&str) -> Source) -> Vec<Fault> {
        let pairs = [
            ("retry-period", self.retry_period, "renew-deadline", self.renew_deadline),
            ("renew-deadline", self.renew_deadline, "lease-duration", self.lease_duration),
        ];
        let wrong = pairs.into_iter().filter(|(_, shorter, _, longer)| shorter >= longer);
        wrong
            .map(|(shorter, value, longer, than)| Fault::NotShorter {
                origin: origin(shorter),
                shorter,
                value,
                longer,
                than,
            })
            .collect()
    }
}
