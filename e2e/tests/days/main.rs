//! Bad days of Kubernetes, and changes while all works: the rows of the fault table (`e2e/faults`) that are about what people and
//! Kubernetes itself do to a Cluster. What was promised holds, in time, and no record that was acknowledged is lost, doubled or
//! out of order. What takes long asks [`taffrail_e2e::faults::all`].
#![allow(clippy::unwrap_used)]

mod api;
mod chart;
mod drains;
mod gone;
mod identity;
mod images;
mod leave;
mod namespace;
mod objects;
mod operate;
mod plan;
mod restore;
mod rolls;
mod scale;
mod snapshots;
mod volumes;
mod zones;

use std::time::Duration;

/// How long a partition may acknowledge nothing after a broker's death: its session, and the election (6 s and some).
const FAILOVER: Duration = Duration::from_secs(10);

/// How long a partition may acknowledge nothing while brokers are stopped in good order, and how long 99 of 100 records may take.
const SMOOTH: Duration = Duration::from_secs(4);

/// How long 99 of 100 records may take then.
const SMOOTH_RECORD: Duration = Duration::from_secs(1);

/// Everything is in sync again so soon after a fault ends.
const HEAL: Duration = Duration::from_mins(1);

/// How long brokers may take to start or to be replaced.
const BROKERS: Duration = Duration::from_mins(3);
