//! The cluster's controller: the broker that holds the cluster's Lease decides who leads which partition.
//!
//! - [`plan`]: what to write next, a pure function over [`liveness`] (who is alive), [`elect`] (who leads), [`slices`] (what
//!   topics need), [`replicas`] (how many each partition has), [`moves`] (which of them move), [`place`] (where they go) and [`frozen`] (what must not change);
//! - [`task`] carries plans out, one round after another.

pub mod elect;
pub mod frozen;
pub mod liveness;
pub mod members;
pub mod moves;
pub mod place;
pub mod plan;
pub mod replicas;
pub mod slices;
pub mod task;
pub mod topics;
