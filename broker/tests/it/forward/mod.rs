//! Calls at a broker that does not lead what they are about.

mod cluster;
mod groups;
mod near;
mod partitions;
mod replicas;
