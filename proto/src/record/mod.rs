//! Kafka's record batch, version 2 (magic 2), byte exact: the unit that is produced, appended, replicated, stored and
//! fetched. Broker and clients use this one codec; it is part of the wire contract.
//!
//! - [`header`]: the 61 bytes in front, parsed, and the patches that a broker makes in place;
//! - [`split`]: whole batches out of concatenated bytes;
//! - [`compression`]: the codecs, with a bound on what is unpacked;
//! - [`walk`]: the strict check of a produced batch before it is appended;
//! - [`builder`]: encodes records into a batch;
//! - [`reader`]: decodes the records of a stored batch;
//! - [`plain`]: conversions to and from the API's plain records.
//!
//! Everything here treats its bytes as hostile: every length and count is checked against what is really there, nothing
//! is allocated because of a number on the wire, nothing recurses. It knows no clock, no topic and no network.

pub mod builder;
pub mod compression;
mod entry;
mod error;
pub mod header;
pub mod plain;
pub mod reader;
pub mod split;
mod varint;
pub mod walk;

pub use builder::BatchBuilder;
pub use compression::{Compression, Packer, Scratch};
pub use entry::{MAX_HEADER_NAME_BYTES, MAX_HEADERS, MAX_HEADERS_BYTES, MAX_KEY_BYTES};
pub use error::{BatchError, InvalidRecord, RecordFault};
pub use header::{BatchHeader, BatchProducer, HEADER_LEN, TimestampType};
pub use reader::{HeaderView, RecordIter, RecordView, find_by_timestamp, records};
pub use split::Batches;
pub use walk::{Limits, Walked, validate};
