//! Topics, offsets and brokers: every call of the `Admin` service and the offset queries of `Consumer`, typed.
//!
//! Descriptions are the API's own messages, whose comments are their reference. Calls that change something are made again
//! only when the broker says that the first had no effect.

use std::collections::BTreeMap;
use std::sync::Arc;

use taffrail_proto::v1::admin_client::AdminClient;
use taffrail_proto::v1::consumer_client::ConsumerClient;
use taffrail_proto::v1::{self, OffsetAnswer, offset_query, undelete_topic_request::Which};
use tonic::{Response, Status};

use crate::client::{Retry, Shared};
use crate::connection::{Connection, MAX_MESSAGE};
use crate::error::{Error, ErrorKind, Result};

pub use taffrail_proto::v1::{
    ConfigEntry, DescribeBrokerResponse as BrokerDescription, EndOfEpochResponse as EndOfEpoch,
    LastSeenResponse as LastSeen, PartitionDescription, SeenObject, TopicDescription,
};

/// Calls to look at topics, groups and brokers and to change them; from [`Client::admin`](crate::Client::admin).
#[derive(Clone)]
pub struct Admin(pub(crate) Arc<Shared>);

/// A topic to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTopic {
    name: String,
    partitions: i32,
    replication_factor: i32,
    config: BTreeMap<String, String>,
}

impl NewTopic {
    /// With the broker's defaults.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Number of partitions, from 1.
    pub fn partitions(mut self, partitions: i32) -> Self {
        self.partitions = partitions;
        self
    }

    /// Replicas of each partition, from 1; without it as the cluster says. A broker that runs alone refuses more than one.
    pub fn replication_factor(mut self, replicas: i32) -> Self {
        self.replication_factor = replicas;
        self
    }

    /// Sets a configuration key, by Kafka's name (`retention.ms`) or Taffrail's (`durability`).
    pub fn config(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.insert(key.into(), value.into());
        self
    }
}

/// What to change about a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicChange {
    partitions: i32,
    replication_factor: i32,
    set: BTreeMap<String, String>,
    unset: Vec<String>,
}

impl TopicChange {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The new number of partitions, not below the present one.
    pub fn partitions(mut self, partitions: i32) -> Self {
        self.partitions = partitions;
        self
    }

    /// The new number of replicas of each partition. Those that are added catch up while the topic is served.
    pub fn replication_factor(mut self, replicas: i32) -> Self {
        self.replication_factor = replicas;
        self
    }

    /// Sets a configuration key.
    pub fn set(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.set.insert(key.into(), value.into());
        self
    }

    /// Puts a configuration key back to its default.
    pub fn unset(mut self, key: impl Into<String>) -> Self {
        self.unset.push(key.into());
        self
    }
}

/// A topic that was put in the trash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedTopic {
    /// What [`Admin::undelete_topic_by_id`] takes.
    pub topic_id: String,
    /// When the data goes for good, in milliseconds since 1970; `i64::MAX`: never by itself.
    pub purge_at_ms: i64,
}

/// Which offset is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// First offset that is still there.
    Earliest,
    /// Exclusive end of what may be read.
    Latest,
    /// First record whose timestamp is this or later, in milliseconds since 1970.
    Timestamp(i64),
    /// The record with the newest timestamp.
    MaxTimestamp,
}

/// An offset that was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    /// Absent when no record matches.
    pub offset: Option<i64>,
    /// Of the record found, in milliseconds since 1970; absent for earliest and latest.
    pub timestamp_ms: Option<i64>,
    /// Leader epoch at that offset.
    pub leader_epoch: Option<i32>,
}

impl Admin {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Makes a topic; with `validate_only`, only checks whether it could be made.
    pub async fn create_topic(&self, topic: NewTopic, validate_only: bool) -> Result<TopicDescription> {
        let NewTopic { name, partitions, replication_factor, config } = topic;
        let config = config.into_iter().collect();
        let request = v1::CreateTopicRequest { name, partitions, config, validate_only, replication_factor };
        let answer = self.change(request, |mut c, r| async move { c.create_topic(r).await }).await?;
        described(answer.topic)
    }

    /// Adds partitions, changes configuration; with `validate_only`, only checks whether that could be done.
    pub async fn alter_topic(&self, name: &str, change: TopicChange, validate_only: bool) -> Result<TopicDescription> {
        let TopicChange { partitions, replication_factor, set, unset } = change;
        let (name, set) = (name.to_owned(), set.into_iter().collect());
        let request = v1::AlterTopicRequest { name, partitions, set, unset, validate_only, replication_factor };
        let answer = self.change(request, |mut c, r| async move { c.alter_topic(r).await }).await?;
        described(answer.topic)
    }

    /// Puts a topic in the trash, from which it can be brought back for its trash window (default 24 h).
    pub async fn delete_topic(&self, name: &str) -> Result<DeletedTopic> {
        self.delete(name, "").await
    }

    /// As [`delete_topic`](Self::delete_topic), but only if the topic still has this id.
    pub async fn delete_topic_by_id(&self, name: &str, topic_id: &str) -> Result<DeletedTopic> {
        self.delete(name, topic_id).await
    }

    async fn delete(&self, name: &str, topic_id: &str) -> Result<DeletedTopic> {
        let request = v1::DeleteTopicRequest { name: name.to_owned(), topic_id: topic_id.to_owned() };
        let answer = self.change(request, |mut c, r| async move { c.delete_topic(r).await }).await?;
        Ok(DeletedTopic { topic_id: answer.topic_id, purge_at_ms: answer.purge_at_ms })
    }

    /// Brings back the topic last deleted under this name, under `new_name` if one is given.
    pub async fn undelete_topic(&self, name: &str, new_name: Option<&str>) -> Result<TopicDescription> {
        self.undelete(Which::Name(name.to_owned()), new_name).await
    }

    /// Brings back this very topic.
    pub async fn undelete_topic_by_id(&self, topic_id: &str, new_name: Option<&str>) -> Result<TopicDescription> {
        self.undelete(Which::TopicId(topic_id.to_owned()), new_name).await
    }

    async fn undelete(&self, which: Which, new_name: Option<&str>) -> Result<TopicDescription> {
        let new_name = new_name.unwrap_or_default().to_owned();
        let request = v1::UndeleteTopicRequest { which: Some(which), new_name };
        let answer = self.change(request, |mut c, r| async move { c.undelete_topic(r).await }).await?;
        described(answer.topic)
    }

    /// Configuration and state of topics; no names: all that the caller may see. `NotFound` if one does not exist.
    pub async fn describe_topics(&self, names: &[&str], include_deleted: bool) -> Result<Vec<TopicDescription>> {
        let names = names.iter().map(|n| (*n).to_owned()).collect();
        let request = v1::DescribeTopicsRequest { names, include_deleted };
        let answer = self.look(request, |mut c, r| async move { c.describe_topics(r).await }).await?;
        Ok(answer.topics)
    }

    /// Deletes the records of a partition before an offset for good; answers the first offset that is there now.
    pub async fn delete_records(&self, topic: &str, partition: i32, before_offset: i64) -> Result<i64> {
        let request = v1::DeleteRecordsRequest { topic: topic.to_owned(), partition, before_offset };
        let answer = self
            .0
            .call_leader((topic, partition), request, |c, r| async move { admin_client(c).delete_records(r).await })
            .await?;
        Ok(answer.log_start_offset)
    }

    /// Has this broker's replica lead a partition that has no leader and waits for a person. **Acknowledged records that its log
    /// lacks are lost.** Answers the leader epoch in which it leads.
    pub async fn recover_partition_accepting_loss(&self, topic: &str, partition: i32, broker: i32) -> Result<i32> {
        let topic = topic.to_owned();
        let request = v1::RecoverPartitionRequest { topic, partition, broker, accept_data_loss: true };
        Ok(self.change(request, |mut c, r| async move { c.recover_partition(r).await }).await?.leader_epoch)
    }

    /// State of the broker that answers.
    pub async fn describe_broker(&self) -> Result<BrokerDescription> {
        self.look(v1::DescribeBrokerRequest {}, |mut c, r| async move { c.describe_broker(r).await }).await
    }

    /// What the broker that answers remembers of the cluster's internal objects; `after`: `next` of the answer before, or
    /// nothing.
    pub async fn last_seen(&self, after: &str) -> Result<LastSeen> {
        let request = v1::LastSeenRequest { after: after.to_owned() };
        self.look(request, |mut c, r| async move { c.last_seen(r).await }).await
    }

    /// Looks up an offset in each of some partitions; answers in the order of the queries. Fails if one of them does.
    pub async fn list_offsets(&self, queries: &[(&str, i32, OffsetSpec)]) -> Result<Vec<ListedOffset>> {
        let mut listed = Vec::with_capacity(queries.len());
        for (topic, partition, spec) in queries {
            listed.push(self.0.list_offset(topic, *partition, *spec).await?);
        }
        Ok(listed)
    }

    /// Where a leader epoch ends in a partition: tells a reader whether its history parts from the log's.
    pub async fn end_of_epoch(&self, topic: &str, partition: i32, leader_epoch: i32) -> Result<EndOfEpoch> {
        let request = v1::EndOfEpochRequest { topic: topic.to_owned(), partition, leader_epoch };
        self.0
            .call_leader(
                (topic, partition),
                request,
                |c, r| async move { ConsumerClient::new(c).end_of_epoch(r).await },
            )
            .await
    }

    async fn change<R: Clone, T, F>(&self, request: R, call: impl Fn(Service, R) -> F + Send + Sync) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>> + Send,
    {
        self.0.call(Retry::NotApplied, request, |connection, request| call(admin_client(connection), request)).await
    }

    async fn look<R: Clone, T, F>(&self, request: R, call: impl Fn(Service, R) -> F + Send + Sync) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>> + Send,
    {
        self.0.call(Retry::Always, request, |connection, request| call(admin_client(connection), request)).await
    }
}

type Service = AdminClient<Connection>;

fn admin_client(connection: Connection) -> Service {
    AdminClient::new(connection).max_decoding_message_size(MAX_MESSAGE)
}

fn described(topic: Option<TopicDescription>) -> Result<TopicDescription> {
    topic.ok_or_else(|| Error::local(ErrorKind::Internal, "the broker answered without a topic: upgrade it"))
}

impl Shared {
    /// Looks up one offset at the partition's leader.
    pub(crate) async fn list_offset(
        self: &Arc<Self>,
        topic: &str,
        partition: i32,
        spec: OffsetSpec,
    ) -> Result<ListedOffset> {
        let at = match spec {
            OffsetSpec::Earliest => offset_query::At::Earliest(v1::Earliest {}),
            OffsetSpec::Latest => offset_query::At::Latest(v1::Latest {}),
            OffsetSpec::Timestamp(ms) => offset_query::At::TimestampMs(ms),
            OffsetSpec::MaxTimestamp => offset_query::At::MaxTimestamp(v1::MaxTimestamp {}),
        };
        let query = v1::OffsetQuery { topic: topic.to_owned(), partition, at: Some(at) };
        let request = v1::ListOffsetsRequest { queries: vec![query], ..v1::ListOffsetsRequest::default() };
        // An answer has a fault of its own, which passes too: a new leader does not know the latest offset yet.
        self.call_leader((topic, partition), request, |c, r| async move {
            let answer = ConsumerClient::new(c).list_offsets(r).await?.into_inner().answers.into_iter().next();
            let unanswered = || Error::local(ErrorKind::Internal, "the broker left a query unanswered");
            let OffsetAnswer { offset, timestamp_ms, leader_epoch, error } = answer.ok_or_else(unanswered)?;
            match error {
                None => Ok(Response::new(ListedOffset { offset, timestamp_ms, leader_epoch })),
                Some(error) => Err(Error::from(error)),
            }
        })
        .await
    }
}
