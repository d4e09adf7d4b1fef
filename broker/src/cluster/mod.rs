//! A broker as a member of a cluster, with its metadata in Kubernetes.
//!
//! - [`member`]: the whole of it, from start to stop;
//! - [`follow`] keeps an [`image`] of the cluster's objects;
//! - [`serving`] makes what is served here follow it;
//! - [`heartbeat`] tells the other brokers that this one is alive, and hears them;
//! - [`topics`] changes Topic objects on behalf of callers;
//! - [`purge`] deletes what is deleted for good;
//! - [`controller`] decides who leads what, on the broker that holds the cluster's Lease.

pub mod controller;
pub mod follow;
pub mod heartbeat;
pub mod image;
pub mod member;
pub mod purge;
pub mod serving;
pub mod topics;

/// This broker, in this session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its number.
    pub broker: i32,
    /// Its incarnation.
    pub incarnation: i64,
}

#[cfg(test)]
mod tests;
