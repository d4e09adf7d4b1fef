//! The cluster's controller: the broker that holds the cluster's Lease decides who leads which partition.
//!
//! - [`plan`]: what to write next, a pure function over [`liveness`] (who is alive), [`elect`] (who leads), [`slices`] (what
//!   topics need), [`replicas`] (how many each partition has), [`moves`] (which of them move) and [`place`] (where they go);
//! - [`task`] carries plans out, one round after another.

pub mod elect;
pub mod liveness;
pub mod members;
pub mod moves;
pub mod place;
pub mod plan;
pub mod replicas;
pub mod slices;
pub mod task;
pub mod topics;
