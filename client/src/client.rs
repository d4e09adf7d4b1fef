//! The client itself: the shared part of producers, consumers and administration, and the one retry loop of unary calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use taffrail_proto::v1::metadata_client::MetadataClient;
use taffrail_proto::v1::{GetMetadataRequest, GetMetadataResponse};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Response, Status};

use crate::admin::Admin;
use crate::config::ClientConfig;
use crate::connection::{Connection, Connections, MAX_MESSAGE, Purpose, StreamPlace};
use crate::consumer::ConsumerBuilder;
use crate::error::{Error, ErrorKind, RequestOutcome, Result};
use crate::group::GroupConsumerBuilder;
use crate::metadata::MetadataCache;
use crate::producer::ProducerBuilder;
use crate::retry::Backoff;

/// Access to a cluster. Cheap to clone; all clones share connections and metadata.
#[derive(Clone)]
pub struct Client(pub(crate) Arc<Shared>);

/// What producers, consumers and administration share.
pub(crate) struct Shared {
    pub(crate) config: ClientConfig,
    pub(crate) connections: Connections,
    pub(crate) metadata: MetadataCache,
    endpoints: Vec<String>,
    /// Which endpoint control calls go to; moves on when one does not answer.
    turn: AtomicUsize,
}

/// Whose turn it was to be asked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turn(usize);

/// When a failed call is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// On every passing fault: doing it twice does no harm.
    Always,
    /// Only when the broker says that it had no effect.
    NotApplied,
}

impl Client {
    /// A client of the cluster that these endpoints belong to (`"host:port"`, or a [`ClientConfig`]).
    ///
    /// Does not wait: connections are made when they are needed, and again by themselves when they break. Fails only
    /// when the settings are not valid.
    pub fn connect(config: impl Into<ClientConfig>) -> Result<Self> {
        let config = config.into();
        let endpoints = config.validate()?;
        let connections = Connections::new(&config);
        let metadata = MetadataCache::new();
        Ok(Self(Arc::new(Shared { config, connections, metadata, endpoints, turn: AtomicUsize::new(0) })))
    }

    /// Settings of a producer, to be built.
    pub fn producer(&self) -> ProducerBuilder {
        ProducerBuilder::new(self.0.clone())
    }

    /// Settings of a consumer, to be built.
    pub fn consumer(&self) -> ConsumerBuilder {
        ConsumerBuilder::new(self.0.clone())
    }

    /// Settings of a member of a consumer group, to be started.
    pub fn group_consumer(&self, group: &str) -> GroupConsumerBuilder {
        GroupConsumerBuilder::new(self.0.clone(), group)
    }

    /// Topics, offsets, groups and brokers.
    pub fn admin(&self) -> Admin {
        Admin::new(self.0.clone())
    }

    /// Brokers, topics, leaders and limits, straight from a broker; no names: all topics that the caller may see.
    pub async fn metadata(&self, topics: &[&str]) -> Result<GetMetadataResponse> {
        let request = GetMetadataRequest { topics: topics.iter().map(|t| (*t).to_owned()).collect() };
        self.0
            .call(Retry::Always, request, |connection, request| async move {
                MetadataClient::new(connection).max_decoding_message_size(MAX_MESSAGE).get(request).await
            })
            .await
    }
}

impl Shared {
    /// A control connection to the broker whose turn it is.
    pub(crate) fn control(&self) -> Result<(Turn, Connection)> {
        let (turn, endpoint) = self.control_endpoint();
        Ok((turn, self.connections.get(Purpose::Control, &endpoint)?))
    }

    /// A control connection with a place for one stream.
    pub(crate) fn control_place(&self) -> Result<(Turn, StreamPlace)> {
        let (turn, endpoint) = self.control_endpoint();
        Ok((turn, self.connections.place(Purpose::Control, &endpoint)?))
    }

    /// The next control call goes to another broker than that whose turn this was: it does not answer. Of several callers that
    /// found it so one moves on.
    pub(crate) fn next_endpoint(&self, after: Turn) {
        let next = after.0.wrapping_add(1);
        let _ = self.turn.compare_exchange(after.0, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn control_endpoint(&self) -> (Turn, String) {
        let turn = self.turn.load(Ordering::Relaxed);
        (Turn(turn), self.endpoint_of(turn))
    }

    fn endpoint_of(&self, turn: usize) -> String {
        if let Some(endpoint) = self.endpoints.get(turn % (self.endpoints.len() + 1)) {
            return endpoint.clone();
        }
        // After a round over the endpoints given comes one that was learnt.
        let snapshot = self.metadata.snapshot();
        let mut brokers: Vec<_> = snapshot.brokers().collect();
        brokers.sort_unstable();
        let round = turn / (self.endpoints.len() + 1);
        brokers.get(round % brokers.len().max(1)).map_or_else(|| self.endpoints[0].clone(), |b| (*b).to_owned())
    }

    /// Makes a small call, again after passing faults and at other brokers, until `request_timeout` has passed.
    pub(crate) async fn call<R: Clone, T, F>(
        &self,
        retry: Retry,
        request: R,
        call: impl Fn(Connection, R) -> F + Send + Sync,
    ) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>> + Send,
    {
        let mut attempts = Attempts::new(self, retry);
        loop {
            let (turn, endpoint) = self.control_endpoint();
            let connection = self.connections.get(Purpose::Control, &endpoint)?;
            let error = match attempts.one(call(connection, request.clone())).await {
                Ok(answer) => return Ok(answer),
                // Not the broker's own words: they do not say who did not answer.
                Err(error) if error.detail().is_none() => error.context(&endpoint),
                Err(error) => error,
            };
            if error.kind() == ErrorKind::Unavailable {
                self.next_endpoint(turn);
            }
            attempts.after(error).await?;
        }
    }

    /// Makes a small call at the leader of a partition, with metadata renewed where it was out of date. `call` may find a
    /// fault in the answer too.
    pub(crate) async fn call_leader<R: Clone, T, E, F>(
        self: &Arc<Self>,
        (topic, partition): (&str, i32),
        request: R,
        call: impl Fn(Connection, R) -> F + Send + Sync,
    ) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, E>> + Send,
        Error: From<E>,
    {
        let mut attempts = Attempts::new(self, Retry::Always);
        loop {
            let error = match self.leader_connection(topic, partition).await {
                Ok(connection) => match attempts.one(call(connection, request.clone())).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            let moved = error.stale_metadata() || error.kind() == ErrorKind::Unavailable;
            attempts.after(error).await?;
            if moved {
                self.renew_metadata().await?;
            }
        }
    }

    async fn leader_connection(self: &Arc<Self>, topic: &str, partition: i32) -> Result<Connection> {
        let info = self.topic(topic).await?;
        if usize::try_from(partition).ok().is_none_or(|p| p >= info.partitions.len()) {
            return Err(no_such_partition(topic, partition, info.partitions.len()));
        }
        match self.metadata.snapshot().leader(topic, partition) {
            Some(endpoint) => self.connections.get(Purpose::Control, endpoint),
            None => Err(no_leader(topic, partition)),
        }
    }
}

/// The tries of one call, within its time.
struct Attempts<'a> {
    shared: &'a Shared,
    retry: Retry,
    deadline: Instant,
    backoff: Backoff,
}

impl<'a> Attempts<'a> {
    fn new(shared: &'a Shared, retry: Retry) -> Self {
        let deadline = Instant::now() + shared.config.request_timeout;
        Self { shared, retry, deadline, backoff: Backoff::default() }
    }

    async fn one<T, E>(&self, call: impl Future<Output = Result<Response<T>, E>> + Send) -> Result<T>
    where
        Error: From<E>,
    {
        match timeout_at(self.deadline, call).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(timed_out(self.shared)),
        }
    }

    /// Waits before the next try, or gives up with the fault of the last one.
    async fn after(&mut self, error: Error) -> Result<()> {
        let wait = self.backoff.next_after(error.retry_after(), rand::random());
        let allowed = self.retry == Retry::Always || error.outcome() == RequestOutcome::NotApplied;
        if !error.worth_a_retry() || !allowed || Instant::now() + wait >= self.deadline {
            return Err(error);
        }
        sleep(wait).await;
        Ok(())
    }
}

fn timed_out(shared: &Shared) -> Error {
    let message = format!(
        "{} did not answer within {:?}: check that it is reachable, or raise request_timeout",
        shared.control_endpoint().1,
        shared.config.request_timeout
    );
    Error::transient(ErrorKind::Timeout, RequestOutcome::Unknown, message)
}

pub(crate) fn no_such_partition(topic: &str, partition: i32, partitions: usize) -> Error {
    let message = format!("topic {topic:?} has no partition {partition}: it has {partitions}, counted from 0");
    Error::local(ErrorKind::NotFound, message)
}

pub(crate) fn no_leader(topic: &str, partition: i32) -> Error {
    let message = format!("partition {partition} of topic {topic:?} has no leader now: wait, or look at its broker");
    Error::transient(ErrorKind::Unavailable, RequestOutcome::NotApplied, message)
}
