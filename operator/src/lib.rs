//! Taffrail's operator: turns `Cluster` objects into what Kubernetes runs, accepts `Topic` objects and tells their state.
//!
//! Each of the two controllers ([`cluster`], [`topic`]) goes the same way for one object at a time: *fetch* what it refers
//! to, *decide* by pure functions, *apply* what differs, take away what is no longer wanted, write the *status*. It is led
//! by what is there, never by what has happened, so that it can die at any [`step::Step`] and go on.
//!
//! Rules:
//! - It writes by server-side apply as [`apply::FIELD_MANAGER`], and only what it decides; fields of others stay.
//! - It writes nothing when nothing differs ([`apply::differs`]).
//! - What it makes in a Cluster's namespace belongs to the Cluster (owner reference), so that deleting the Cluster collects
//!   it. Objects that somebody else made are never taken over.
//! - A finalizer is on a Topic only while deleting it must delete data, and it never holds a namespace.
//! - It never talks to brokers and is never on the data path.
#![warn(missing_docs)]

pub mod admin_http;
pub mod apply;
pub mod cli;
pub mod cluster;
pub mod context;
pub mod crash;
pub mod error;
pub mod events;
pub mod lease;
pub mod metrics;
pub mod plan;
pub mod readiness;
pub mod replicas;
pub mod rewind;
pub mod run;
pub mod status;
pub mod step;
pub mod survives;
pub mod telemetry;
pub mod topic;
pub mod watches;
