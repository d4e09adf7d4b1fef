//! Calls at a broker that does not lead what they are about.

mod cluster;
mod groups;
mod partitions;
mod replicas;
