//! Taffrail's wire contract: what clients and brokers must agree on byte for byte, and nothing else.
//!
//! - [`v1`]: the gRPC API, generated from `taffrail/v1/*.proto`, whose comments are its reference;
//! - [`internal::v1`]: what brokers say to each other, on a port of their own;
//! - [`record`]: Kafka's record batch format: encode, check, decode;
//! - [`partitioner`]: which partition a key belongs to;
//! - [`codec`]: how gRPC messages become bytes.

pub mod codec;
pub mod partitioner;
pub mod record;

/// The gRPC API, version 1.
#[allow(clippy::all, clippy::pedantic, unreachable_pub, unused_qualifications)]
pub mod v1 {
    tonic::include_proto!("taffrail.v1");

    /// The API's descriptors, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/taffrail.v1.bin"));
}

/// Between brokers: no part of the API.
pub mod internal {
    /// Version 1.
    #[allow(clippy::all, clippy::pedantic, unreachable_pub, unused_qualifications)]
    pub mod v1 {
        tonic::include_proto!("taffrail.internal.v1");
    }
}
