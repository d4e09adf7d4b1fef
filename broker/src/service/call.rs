//! What every handler begins with: who calls, on which connection, until when, and bounds on what any request may name.

use std::sync::Arc;
use std::time::Duration;

use taffrail_proto::v1::{LogError, NotLeader, Reason};
use tokio::time::Instant;
use tonic::metadata::MetadataValue;
use tonic::{Extensions, Request, Response, Status};

use super::Broker;
use super::status::{Refused, invalid, refusal, status};
use crate::brokers::INTERNAL;
use crate::memory::Charge;
use crate::metrics::Metrics;
use crate::security::{self, Caller, Denied, FORWARDED_FOR, Resource, Verb};
use crate::server::{Connection, Outbox};
use crate::topics::Topic;

/// The longest name that is looked up; longer ones cannot be names of topics (Kafka's bound).
const MAX_TOPIC_NAME_BYTES: usize = 249;
/// The longest client id.
const MAX_CLIENT_ID_BYTES: usize = 255;

/// A call under way.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) caller: Caller,
    pub(super) connection: Arc<Connection>,
    pub(super) outbox: Outbox,
    /// When the client stops waiting, if it said so.
    pub(super) deadline: Option<Instant>,
}

impl Call {
    /// Of a request that came through [`server`](crate::server).
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        Self::of_extensions(request.extensions(), request.metadata().get("grpc-timeout").map(MetadataValue::as_bytes))
            .ok_or_else(|| Status::internal("the request did not come through a listener"))
    }

    fn of_extensions(extensions: &Extensions, timeout: Option<&[u8]>) -> Option<Self> {
        Some(Self {
            caller: *extensions.get::<Caller>()?,
            connection: Arc::clone(extensions.get::<Arc<Connection>>()?),
            outbox: extensions.get::<Outbox>()?.clone(),
            deadline: timeout.and_then(parse_timeout).and_then(|timeout| Instant::now().checked_add(timeout)),
        })
    }

    /// May the caller do this to a topic? Checks the name's length too, which every later message then may quote.
    pub(super) fn authorize_topic(&self, verb: Verb, name: &str) -> Result<(), Refused> {
        if name.is_empty() || name.len() > MAX_TOPIC_NAME_BYTES {
            let length = name.len();
            return Err(Refused::of(invalid("topic", format_args!("a name has 1 to 249 bytes, not {length}"))));
        }
        Ok(security::authorize(&self.caller, verb, Resource::Topic(name))?)
    }

    /// May the caller do this to the cluster?
    pub(super) fn authorize_cluster(&self, verb: Verb) -> Result<(), Denied> {
        security::authorize(&self.caller, verb, Resource::Cluster)
    }

    /// It comes from another broker, which was asked by a client: it is not passed on again.
    pub(super) fn is_forwarded(&self) -> bool {
        *self.connection.listener.name == *INTERNAL
    }

    /// A request to another broker in the name of this one's caller, with its deadline.
    pub(super) fn forward<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Ok(caller) = self.caller.to_text().parse() {
            request.metadata_mut().insert(FORWARDED_FOR, caller);
        }
        if let Some(deadline) = self.deadline {
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        request
    }

    /// A client that names the leader epoch means to ask the leader itself: where that is another broker, it is sent there.
    /// Not one that cannot reach single brokers.
    pub(super) fn check_direct(
        &self,
        broker: &Broker,
        topic: &Topic,
        index: i32,
        leader_epoch: Option<i32>,
    ) -> Result<(), Refused> {
        let listener = &self.connection.listener;
        if leader_epoch.is_none() || listener.exposed || topic.partition(index)?.is_local() {
            return Ok(());
        }
        let assignment = usize::try_from(index).ok().and_then(|index| topic.assignments.get(index));
        let Some((leader, leader_epoch)) = assignment.and_then(|found| Some((found.leader?, found.leader_epoch)))
        else {
            return Ok(());
        };
        let endpoint = broker.brokers.image().endpoint(leader, &listener.name).unwrap_or_default().to_owned();
        let message = format_args!("broker {leader} leads the partition: go there");
        let not_leader = Some(NotLeader { broker: leader, endpoint, leader_epoch });
        Err(LogError { not_leader, ..refusal(Reason::NotLeader, message) }.into())
    }

    /// Accounts for what a request holds until it is answered. It was let in when its connection was admitted; what is
    /// charged here decides about the next.
    pub(super) fn hold(&self, bytes: usize) -> Charge {
        self.connection.requests.overdraw(bytes)
    }

    /// Never ends if the client gave no deadline.
    pub(super) async fn overdue(&self) {
        match self.deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }
}

/// The `grpc-timeout` header: up to eight digits and a unit. Anything else is no timeout.
fn parse_timeout(header: &[u8]) -> Option<Duration> {
    let (unit, digits) = header.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(amount * 3_600)),
        b'M' => Some(Duration::from_secs(amount * 60)),
        b'S' => Some(Duration::from_secs(amount)),
        b'm' => Some(Duration::from_millis(amount)),
        b'u' => Some(Duration::from_micros(amount)),
        b'n' => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// A client's name for itself.
pub(super) fn check_client_id(id: &str) -> Result<(), Refused> {
    if id.len() > MAX_CLIENT_ID_BYTES {
        return Err(invalid("open.client_id", format_args!("has {} bytes, more than 255", id.len())).into());
    }
    Ok(())
}

/// The answer of a unary call. Errors are counted by reason.
pub(super) fn finish<T>(metrics: &Metrics, result: Result<T, Refused>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|refused| refuse(metrics, &refused.0))
}

/// The status of an error, counted.
pub(super) fn refuse(metrics: &Metrics, error: &LogError) -> Status {
    count(metrics, error);
    status(error)
}

/// Counts an error that goes out inside a stream.
pub(super) fn count(metrics: &Metrics, error: &LogError) {
    metrics.error(error.reason());
    if error.reason() == Reason::Internal {
        tracing::error!(error = error.message, "a request failed for a fault of the broker");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(parse_timeout(b"5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse_timeout(b"250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse_timeout(b"99999999H"), Some(Duration::from_hours(99_999_999)));
        for wrong in [&b""[..], b"S", b"5", b"5s", b"123456789S", b"-1S", b"1 S"] {
            assert_eq!(parse_timeout(wrong), None, "{wrong:?}");
        }
    }
}
