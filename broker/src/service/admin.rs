//! Admin: topics through the controller, records through their partition, the broker's state.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::join_all;
use prost::Message;
use taffrail_crds::topic::MAX_REPLICATION_FACTOR;
use taffrail_proto::v1::{self, ConfigEntry, PartitionDescription};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::Broker;
use super::call::{Call, finish};
use super::last_seen;
use super::status::{Refused, invalid};
use crate::controller::{Deleted, NewTopic, TopicChange, TopicDescription};
use crate::metrics::{Rpc, resident_bytes};
use crate::partition::Current;
use crate::security::{self, Resource, Verb};
use crate::topics::Topic;

/// Configuration keys, or names of topics, in one request.
const MAX_ENTRIES: usize = 1_000;
/// Longest key or value of a configuration.
const MAX_CONFIG_BYTES: usize = 4 << 10;
/// About what a topic and a partition take in an answer.
const TOPIC_BYTES: usize = 8 << 10;
const PARTITION_BYTES: usize = 64;

/// The service `Admin`.
pub(super) struct Service {
    broker: Arc<Broker>,
}

impl Service {
    pub(super) fn new(broker: &Arc<Broker>) -> Self {
        Self { broker: Arc::clone(broker) }
    }

    async fn create(&self, call: &Call, request: v1::CreateTopicRequest) -> Result<v1::CreateTopicResponse, Refused> {
        call.authorize_topic(Verb::Create, &request.name)?;
        let partitions = partitions(request.partitions)?.or(Some(self.broker.default_partitions));
        let replication_factor = replication_factor(request.replication_factor)?;
        let config = config("config", request.config)?;
        let topic = NewTopic { name: request.name, partitions, replication_factor, config };
        let made = self.broker.controller.create(topic, request.validate_only).await?;
        Ok(v1::CreateTopicResponse { topic: Some(self.describe(made).await) })
    }

    async fn alter(&self, call: &Call, request: v1::AlterTopicRequest) -> Result<v1::AlterTopicResponse, Refused> {
        call.authorize_topic(Verb::Alter, &request.name)?;
        check_entries("unset", request.unset.len())?;
        let (partitions, set) = (partitions(request.partitions)?, config("set", request.set)?);
        let replication_factor = replication_factor(request.replication_factor)?;
        let change = TopicChange { partitions, replication_factor, set, unset: request.unset };
        let changed = self.broker.controller.alter(&request.name, change, request.validate_only).await?;
        Ok(v1::AlterTopicResponse { topic: Some(self.describe(changed).await) })
    }

    async fn delete(&self, call: &Call, request: v1::DeleteTopicRequest) -> Result<v1::DeleteTopicResponse, Refused> {
        call.authorize_topic(Verb::Delete, &request.name)?;
        let id = if request.topic_id.is_empty() { None } else { Some(topic_id(&request.topic_id)?) };
        let deleted = self.broker.controller.delete(&request.name, id).await?;
        self.broker.metrics.forget_topic(&request.name);
        let purge_at_ms = deleted.trash.map_or(0, |trash| trash.purge_at);
        Ok(v1::DeleteTopicResponse { topic_id: deleted.id.to_string(), purge_at_ms })
    }

    async fn undelete(
        &self,
        call: &Call,
        request: v1::UndeleteTopicRequest,
    ) -> Result<v1::UndeleteTopicResponse, Refused> {
        let new_name = (!request.new_name.is_empty()).then_some(request.new_name.as_str());
        if let Some(name) = new_name {
            call.authorize_topic(Verb::Create, name)?;
        }
        let which = match request.which {
            Some(v1::undelete_topic_request::Which::Name(name)) => {
                call.authorize_topic(Verb::Delete, &name)?;
                Deleted::Name(name)
            }
            Some(v1::undelete_topic_request::Which::TopicId(id)) => {
                call.authorize_cluster(Verb::Delete)?;
                Deleted::Id(topic_id(&id)?)
            }
            None => return Err(invalid("which", "say which topic: name or topic_id").into()),
        };
        let topic = self.broker.controller.undelete(which, new_name).await?;
        Ok(v1::UndeleteTopicResponse { topic: Some(self.describe(topic).await) })
    }

    async fn describe_topics(
        &self,
        call: &Call,
        request: v1::DescribeTopicsRequest,
    ) -> Result<v1::DescribeTopicsResponse, Refused> {
        check_entries("names", request.names.len())?;
        for name in &request.names {
            call.authorize_topic(Verb::Describe, name)?;
        }
        let controller = &self.broker.controller;
        let mut found = Vec::new();
        if request.names.is_empty() || request.include_deleted {
            let listed = controller.list(request.include_deleted).await?;
            let wanted = |topic: &TopicDescription| {
                if request.names.is_empty() { !topic.internal } else { request.names.contains(&topic.name) }
            };
            let visible = |topic: &TopicDescription| {
                security::authorize(&call.caller, Verb::Describe, Resource::Topic(&topic.name)).is_ok()
            };
            found.extend(listed.into_iter().filter(|topic| wanted(topic) && visible(topic)));
        }
        for name in &request.names {
            if !found.iter().any(|topic| topic.name == *name) {
                found.push(controller.describe(name).await?);
            }
        }
        let bytes = found.iter().map(|topic| TOPIC_BYTES + topic.partitions as usize * PARTITION_BYTES).sum();
        call.outbox.put(call.connection.responses.charge(bytes).await);
        Ok(v1::DescribeTopicsResponse { topics: join_all(found.into_iter().map(|topic| self.describe(topic))).await })
    }

    async fn delete_records(
        &self,
        call: &Call,
        request: v1::DeleteRecordsRequest,
    ) -> Result<v1::DeleteRecordsResponse, Refused> {
        call.authorize_topic(Verb::Alter, &request.topic)?;
        let partition = self.broker.topics.image().partition(&request.topic, request.partition)?.clone();
        let log_start_offset = partition.delete_records(request.before_offset).await?;
        Ok(v1::DeleteRecordsResponse { log_start_offset })
    }

    /// Whoever may administer the cluster may give up records.
    async fn recover_partition(
        &self,
        call: &Call,
        request: v1::RecoverPartitionRequest,
    ) -> Result<v1::RecoverPartitionResponse, Refused> {
        call.authorize_cluster(Verb::Admin)?;
        let v1::RecoverPartitionRequest { topic, partition, broker, accept_data_loss } = request;
        if !accept_data_loss {
            return Err(
                invalid("accept_data_loss", "records that other replicas have may be lost: say that they may").into()
            );
        }
        tracing::warn!(topic, partition, broker, "commanded to lead with possible loss of records");
        let leader_epoch = self.broker.controller.recover(&topic, partition, broker).await?;
        Ok(v1::RecoverPartitionResponse { leader_epoch })
    }

    /// It tells the names of all topics, and where they are.
    async fn last_seen(&self, call: &Call, request: v1::LastSeenRequest) -> Result<v1::LastSeenResponse, Refused> {
        call.authorize_cluster(Verb::Admin)?;
        call.outbox.put(call.connection.responses.charge(super::MAX_RESPONSE_BYTES).await);
        last_seen::answer(self.broker.last_seen.as_ref(), self.broker.brokers.me(), request).await
    }

    fn describe_broker(&self) -> v1::DescribeBrokerResponse {
        let broker = &self.broker;
        let (image, status, identity) = (broker.topics.image(), broker.storage.status(), broker.storage.identity());
        let full = status.disk_full.then(|| "the disk is full up to its reserve".to_owned());
        v1::DescribeBrokerResponse {
            id: broker.brokers.me(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_id: broker.cluster_id(),
            storage_id: identity.storage.to_string(),
            incarnation: identity.incarnation,
            data_dir: broker.data_dir.clone(),
            format_version: broker.format_version,
            uptime_seconds: broker.metrics.uptime_seconds(),
            topics: image.topics().filter(|topic| !topic.internal).count() as u32,
            partitions: image.topics().filter(|topic| !topic.internal).map(|topic| topic.partitions.len() as u32).sum(),
            disk_used_bytes: status.used_bytes,
            disk_free_bytes: status.free_bytes,
            resident_bytes: resident_bytes(),
            read_only_reason: status.failed.or(full).unwrap_or_default(),
        }
    }

    /// What the controller says of a topic, and what its partitions say of themselves if it is served.
    async fn describe(&self, topic: TopicDescription) -> v1::TopicDescription {
        let served = self.broker.topics.image().topic(&topic.name).ok().cloned();
        let served = served.filter(|served| served.id == topic.id);
        let partitions = (0..topic.partitions).map(async |index| match &served {
            Some(served) => describe_partition(index, served).await,
            None => not_served(index),
        });
        let partitions = join_all(partitions).await;
        let entry = |entry: taffrail_crds::config::ConfigEntry| ConfigEntry {
            key: entry.key,
            value: entry.value,
            is_default: entry.is_default,
            documentation: entry.documentation.to_owned(),
        };
        v1::TopicDescription {
            topic_id: topic.id.to_string(),
            partitions,
            config: topic.config.into_iter().map(entry).collect(),
            deleted_at_ms: topic.trash.map(|trash| trash.deleted_at),
            purge_at_ms: topic.trash.map(|trash| trash.purge_at),
            internal: topic.internal,
            replication_factor: topic.replication_factor,
            name: topic.name,
        }
    }
}

/// Without its ends while its leader does not answer.
async fn describe_partition(index: i32, topic: &Topic) -> PartitionDescription {
    let (Ok(partition), Some(assignment)) = (topic.partition(index), topic.assignments.get(index as usize)) else {
        return not_served(index);
    };
    let leader = assignment.leader.unwrap_or(-1);
    let described = PartitionDescription { leader, leader_epoch: assignment.leader_epoch, ..not_served(index) };
    let Ok(Current { snapshot, size_bytes }) = partition.current().await else { return described };
    PartitionDescription {
        leader_epoch: snapshot.leader_epoch,
        log_start_offset: snapshot.log_start,
        high_watermark: snapshot.high_watermark,
        log_end_offset: snapshot.log_end,
        size_bytes,
        ..described
    }
}

/// Of a topic in the trash, or one that was only checked.
fn not_served(index: i32) -> PartitionDescription {
    PartitionDescription { index, leader: -1, leader_epoch: -1, ..PartitionDescription::default() }
}

fn partitions(asked: i32) -> Result<Option<i32>, Refused> {
    match asked {
        0 => Ok(None),
        1.. => Ok(Some(asked)),
        _ => Err(invalid("partitions", format_args!("must be from 1, or 0 for the default, not {asked}")).into()),
    }
}

fn replication_factor(asked: i32) -> Result<Option<i32>, Refused> {
    match asked {
        0 => Ok(None),
        1..=MAX_REPLICATION_FACTOR => Ok(Some(asked)),
        _ => {
            let why = format_args!("must be from 1 to {MAX_REPLICATION_FACTOR}, or 0 for the cluster's, not {asked}");
            Err(invalid("replication_factor", why).into())
        }
    }
}

fn config(field: &str, entries: HashMap<String, String>) -> Result<Vec<(String, String)>, Refused> {
    check_entries(field, entries.len())?;
    if entries.iter().any(|(key, value)| key.len() + value.len() > MAX_CONFIG_BYTES) {
        return Err(invalid(field, "a key and its value have at most 4,096 bytes").into());
    }
    let mut entries: Vec<_> = entries.into_iter().collect();
    entries.sort();
    Ok(entries)
}

fn check_entries(field: &str, count: usize) -> Result<(), Refused> {
    if count > MAX_ENTRIES {
        return Err(invalid(field, format_args!("has {count} entries, more than {MAX_ENTRIES}")).into());
    }
    Ok(())
}

fn topic_id(text: &str) -> Result<Uuid, Refused> {
    let fault = "is not a UUID of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    Uuid::try_parse(text).map_err(|_| invalid("topic_id", fault).into())
}

#[tonic::async_trait]
impl v1::admin_server::Admin for Service {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        let metrics = &self.broker.metrics;
        let _counted = metrics.rpc(Rpc::CreateTopic).call();
        let call = Call::of(&request)?;
        let _held = call.hold(request.get_ref().encoded_len());
        finish(metrics, self.create(&call, request.into_inner()).await)
    }

    async fn alter_topic(
        &self,
        request: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::AlterTopicResponse>, Status> {
        let metrics = &self.broker.metrics;
        let _counted = metrics.rpc(Rpc::AlterTopic).call();
        let call = Call::of(&request)?;
        let _held = call.hold(request.get_ref().encoded_len());
        finish(metrics, self.alter(&call, request.into_inner()).await)
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        let metrics = &self.broker.metrics;
        let _counted = metrics.rpc(Rpc::DeleteTopic).call();
        let call = Call::of(&request)?;
        let _held = call.hold(request.get_ref().encoded_len());
        finish(metrics, self.delete(&call, request.into_inner()).await)
    }

    async fn undelete_topic(
        &self,
        request: Request<v1::UndeleteTopicRequest>,
    ) -> Result<Response<v1::UndeleteTopicResponse>, Status> {
        let metrics = &self.broker.metrics;
        let _counted = metrics.rpc(Rpc::UndeleteTopic).call();
        let call = Call::of(&request)?;
        let _held = call.hold(request.get_ref().encoded_len());
        finish(metrics, self.undelete(&call, request.into_inner()).await)
    }

    async fn describe_topics(
        &self,
        request: Request<v1::DescribeTopicsRequest>,
    ) -> Result<Response<v1::DescribeTopicsResponse>, Status> {
        let metrics = &self.broker.metrics;
        let _counted = metrics.rpc(Rpc::DescribeTopics).call();
        let call = Call::of(&request)?;
        let _held = call.hold(request.get_ref().encoded_len());
        finish(metrics, self.describe_topics(&call, request.into_inner()).await)
    }

    async fn delete_records(
        &self,
        request: Request<v1::DeleteRecordsRequest>,
    ) -> Result<Response<v1::DeleteRecordsResponse>, Status> {
        let metrics = &self.broker.metrics;
        let _counted = metrics.rpc(Rpc::DeleteRecords).call();
        let call = Call::of(&request)?;
        let _held = call.hold(request.get_ref().encoded_len());
        finish(metrics, self.delete_records(&call, request.into_inner()).await)
    }

    async fn recover_partition(
        &self,
        request: Request<v1::RecoverPartitionRequest>,
    ) -> Result<Response<v1::RecoverPartitionResponse>, Status> {
        let metrics = &self.broker.metrics;
        let _counted = metrics.rpc(Rpc::RecoverPartition).call();
        let call = Call::of(&request)?;
        let _held = call.hold(request.get_ref().encoded_len());
        finish(metrics, self.recover_partition(&call, request.into_inner()).await)
    }

    async fn describe_broker(
        &self,
        request: Request<v1::DescribeBrokerRequest>,
    ) -> Result<Response<v1::DescribeBrokerResponse>, Status> {
        let metrics = &self.broker.metrics;
        let _counted = metrics.rpc(Rpc::DescribeBroker).call();
        let call = Call::of(&request)?;
        let allowed = call.authorize_cluster(Verb::Describe).map_err(Refused::from);
        finish(metrics, allowed.map(|()| self.describe_broker()))
    }

    async fn last_seen(&self, request: Request<v1::LastSeenRequest>) -> Result<Response<v1::LastSeenResponse>, Status> {
        let metrics = &self.broker.metrics;
        let _counted = metrics.rpc(Rpc::LastSeen).call();
        let call = Call::of(&request)?;
        let _held = call.hold(request.get_ref().encoded_len());
        finish(metrics, self.last_seen(&call, request.into_inner()).await)
    }
}
