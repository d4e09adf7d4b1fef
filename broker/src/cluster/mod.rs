//! A broker as a member of a cluster, with its metadata in Kubernetes.
//!
//! - [`follow`] keeps an [`image`] of the cluster's objects;
//! - [`serving`] makes what is served here follow it;
//! - [`heartbeat`] tells the other brokers that this one is alive, and hears them;
//! - [`controller`] decides who leads what, on the broker that holds the cluster's Lease.

pub mod controller;
pub mod follow;
pub mod heartbeat;
pub mod image;
pub mod serving;
