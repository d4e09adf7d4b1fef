//! How soon a dead broker or controller is noticed.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;

/// How soon a dead broker is noticed. Shorter times find it sooner and take more pauses for a death.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.retryPeriod) ? duration(self.retryPeriod) : duration('1s')) < (has(self.renewDeadline) ? duration(self.renewDeadline) : duration('4s'))")
        .message("retryPeriod (1s if not set) must be shorter than renewDeadline (4s if not set)")
        .field_path(".retryPeriod"),
    validation = Rule::new("(has(self.renewDeadline) ? duration(self.renewDeadline) : duration('4s')) < (has(self.leaseDuration) ? duration(self.leaseDuration) : duration('6s'))")
        .message("renewDeadline (4s if not set) must be shorter than leaseDuration (6s if not set)")
        .field_path(".renewDeadline")
)]
pub struct Failover {
    /// How long a broker may be silent before the controller takes its partitions away: from 100ms to 1h. Default: 6s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(BOUNDS).message(OUT_OF_BOUNDS))]
    pub session_timeout: Option<Duration>,

    /// How long the controller's Lease holds without being renewed: from 100ms to 1h. Default: 6s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(BOUNDS).message(OUT_OF_BOUNDS))]
    pub lease_duration: Option<Duration>,

    /// How long after its last renewal the controller stops to write: shorter than leaseDuration. Default: 4s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(BOUNDS).message(OUT_OF_BOUNDS))]
    pub renew_deadline: Option<Duration>,

    /// How often the Lease is renewed, and asked for: shorter than renewDeadline. Default: 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(BOUNDS).message(OUT_OF_BOUNDS))]
    pub retry_period: Option<Duration>,
}

/// Days and weeks are none of CEL's units, and longer than any of these times.
const BOUNDS: &str = "!self.matches('[wd]') && duration(self) >= duration('100ms') && duration(self) <= duration('1h')";
const OUT_OF_BOUNDS: &str = "from 100ms to 1h, such as 800ms or 6s";

impl Failover {
    /// How long a broker may be silent.
    pub fn session_timeout(&self) -> Duration {
        self.session_timeout.unwrap_or(Duration::from_millis(6_000))
    }

    /// How long the Lease holds.
    pub fn lease_duration(&self) -> Duration {
        self.lease_duration.unwrap_or(Duration::from_millis(6_000))
    }

    /// How long after its last renewal the controller stops to write.
    pub fn renew_deadline(&self) -> Duration {
        self.renew_deadline.unwrap_or(Duration::from_millis(4_000))
    }

    /// How often the Lease is renewed.
    pub fn retry_period(&self) -> Duration {
        self.retry_period.unwrap_or(Duration::from_millis(1_000))
    }
}
