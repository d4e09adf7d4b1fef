//! Taffrail's Rust client.
//!
//! ```no_run
//! # async fn example() -> taffrail_client::Result<()> {
//! use taffrail_client::{Client, Position, Record};
//!
//! let client = Client::connect("localhost:9094")?;
//! let producer = client.producer().build()?;
//! let receipt = producer.send(Record::to("orders").key("customer-7").value("12 apples")).await?;
//! println!("stored at offset {:?}", receipt.await?.offset);
//! producer.close().await?;
//!
//! let mut consumer = client.consumer().topic("orders").from(Position::Earliest).build().await?;
//! while let Some(record) = consumer.next().await {
//!     println!("{:?}", record?.value);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - [`Producer`]: batches records, keeps many in flight, and stores each once and in order ([`Delivery`]);
//! - [`Consumer`]: reads partitions in order, through restarts and changes of leaders;
//! - [`GroupConsumer`]: shares topics with the other members of its group, and commits how far it came ([`CommitMode`]);
//! - [`Admin`]: topics, offsets, groups, brokers;
//! - [`Error`]: what went wrong, whether a retry helps, whether it took effect.
//!
//! All of it is asynchronous and needs a tokio runtime.

#![warn(missing_docs)]

mod admin;
mod client;
mod config;
mod connection;
mod consumer;
mod error;
mod group;
mod metadata;
mod metrics;
mod producer;
mod retry;

pub use admin::{
    Admin, BrokerDescription, ConfigEntry, DeletedTopic, EndOfEpoch, LastSeen, ListedOffset, NewTopic, OffsetSpec,
    PartitionDescription, SeenObject, TopicChange, TopicDescription,
};
pub use client::Client;
pub use config::{ClientConfig, DEFAULT_PORT};
pub use consumer::{Consumer, ConsumerBuilder, ConsumerRecord, Header, Position, RecordBatch, ResetPolicy};
pub use error::{Error, ErrorKind, RequestOutcome, Result};
pub use group::{
    Assignor, CommitMode, CommittedOffset, GroupConsumer, GroupConsumerBuilder, GroupDescription, GroupMember,
    GroupOffset, GroupPartition, GroupState, GroupSummary, OffsetChange, OffsetReset, RebalanceListener, Records,
    ResetTo, RevokeCommit, TopicPartition,
};
pub use metrics::{ConsumerMetrics, ProducerMetrics};
pub use producer::{Acks, Compression, Delivery, Producer, ProducerBuilder, Receipt, Record, RecordMetadata};
pub use taffrail_proto::record::{RecordView, TimestampType};
pub use taffrail_proto::v1::{Durability, GetMetadataResponse, Reason, TopicPartitions};
