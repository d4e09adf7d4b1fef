//! A broker as a member of a cluster, with its metadata in Kubernetes.

pub mod controller;
