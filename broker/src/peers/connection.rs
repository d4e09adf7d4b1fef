//! The connections to one other broker.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use taffrail_proto::internal::v1::partitions_client::PartitionsClient;
use taffrail_proto::internal::v1::replicas_client::ReplicasClient;
use taffrail_proto::v1::{LogError, Reason};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::appends::{self, Appends};
use super::watches::{self, Watches};
use crate::brokers::{Brokers, Place};
use crate::service::status::{Refused, log_error, refusal, unknown_outcome};

/// How long a connection may take to be made. Brokers are near each other; where a pod is gone nothing answers at all.
const CONNECT: Duration = Duration::from_secs(1);
/// A broker that is silent is asked whether it is alive, and its connection dropped when it does not answer.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));
/// How long a call with one answer may take.
pub(super) const CALL: Duration = Duration::from_secs(10);
/// How long a broker that could not be reached is not tried again: at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Largest message between brokers: a whole read, or a frame of batches.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// What a connection is for, with its windows: of a stream and of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Batches in and out.
    Data,
    /// Short questions.
    Control,
    /// Streams of groups' members: the windows of a few hundred that are not read fit the connection's.
    Members,
    /// Copies of partitions that it leads.
    Replicas,
}

impl Purpose {
    fn windows(self) -> (u32, u32) {
        match self {
            Self::Data | Self::Replicas => (8 << 20, 16 << 20),
            Self::Control => (1 << 20, 4 << 20),
            Self::Members => (64 << 10, 16 << 20),
        }
    }
}

/// The way to one broker.
pub struct Peer {
    connector: Arc<Connector>,
    appends: Appends,
    watches: Watches,
}

/// Channels to where the broker is registered.
pub(super) struct Connector {
    brokers: Arc<Brokers>,
    broker: i32,
    way: Mutex<Way>,
}

/// What there is of connections to one place. When the broker is registered at another one, they and their failures count
/// no more.
#[derive(Default)]
struct Way {
    to: Option<Place>,
    channels: [Option<Channel>; 4],
    failed: Option<Failed>,
}

/// Connections that could not be made, one after the other.
#[derive(Clone, Copy)]
struct Failed {
    until: Instant,
    pause: Duration,
}

impl Peer {
    pub(super) fn new(brokers: Arc<Brokers>, broker: i32, max_in_flight: usize) -> Arc<Self> {
        let connector = Arc::new(Connector { brokers, broker, way: Mutex::default() });
        let appends = appends::start(connector.clone(), max_in_flight);
        let watches = watches::start(connector.clone());
        Arc::new(Self { connector, appends, watches })
    }

    pub(crate) fn appends(&self) -> &Appends {
        &self.appends
    }

    pub(crate) fn watches(&self) -> &Watches {
        &self.watches
    }

    /// A channel to it; an error while it is not registered, or could not be reached a moment ago.
    pub(crate) fn channel(&self, purpose: Purpose) -> Result<Channel, Refused> {
        self.connector.channel(purpose)
    }

    /// To follow partitions that it leads.
    pub(crate) fn replicas(&self) -> Result<ReplicasClient<Channel>, Refused> {
        let client = ReplicasClient::new(self.connector.channel(Purpose::Replicas)?);
        Ok(client.max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// It answers.
    pub(crate) fn reached(&self) {
        self.connector.reached();
    }

    /// Ends when the broker is registered at another place than now.
    pub(crate) fn moved(&self) -> impl Future<Output = ()> + use<> {
        self.connector.moved()
    }

    /// A stream that it has ended.
    pub(crate) fn broken(&self) -> LogError {
        self.connector.unknown("broke the connection off")
    }

    /// Asks it something with one answer.
    pub(crate) async fn call<T, F>(
        &self,
        purpose: Purpose,
        ask: impl FnOnce(PartitionsClient<Channel>) -> F,
    ) -> Result<T, LogError>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let moved = self.connector.moved();
        let client = self.connector.client(purpose).map_err(|refused| *refused.0)?;
        // In a box: whoever reads what is led here pays for no room for it.
        let asked = Box::pin(async {
            tokio::select! {
                biased;
                answer = ask(client) => Some(answer),
                () = moved => None,
            }
        });
        match tokio::time::timeout(CALL, asked).await {
            Ok(Some(Ok(answer))) => {
                self.connector.reached();
                Ok(answer.into_inner())
            }
            Ok(Some(Err(status))) => Err(self.connector.failed(&status)),
            Ok(None) => Err(self.broken()),
            Err(_) => Err(self.connector.unknown("did not answer in time")),
        }
    }

    /// What a failed call means, and what the client is told.
    pub(crate) fn failed(&self, status: &Status) -> LogError {
        self.connector.failed(status)
    }
}

impl Connector {
    pub(super) fn client(&self, purpose: Purpose) -> Result<PartitionsClient<Channel>, Refused> {
        let client = PartitionsClient::new(self.channel(purpose)?);
        Ok(client.max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    fn channel(&self, purpose: Purpose) -> Result<Channel, Refused> {
        let mut way = self.way.lock();
        let Some(place) = self.brokers.image().place(self.broker) else {
            return Err(self.refused("is not registered").into());
        };
        if way.to.as_ref() != Some(&place) {
            *way = Way { to: Some(place.clone()), ..Way::default() };
        }
        if way.failed.is_some_and(|failed| Instant::now() < failed.until) {
            return Err(self.refused("could not be reached a moment ago").into());
        }
        let slot = &mut way.channels[purpose as usize];
        if let Some(channel) = slot {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{}", place.address))
            .map_err(|_| Refused::of(self.refused("is registered with an address that is none")))?;
        let (stream, connection) = purpose.windows();
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .initial_stream_window_size(stream)
            .initial_connection_window_size(connection)
            .http2_keep_alive_interval(KEEP_ALIVE.0)
            .keep_alive_timeout(KEEP_ALIVE.1)
            .keep_alive_while_idle(true);
        let channel = self.brokers.network().dial(endpoint);
        *slot = Some(channel.clone());
        Ok(channel)
    }

    /// Ends when the broker is registered at another place than now: whoever waits for an answer from there waits in vain,
    /// and need not wait to try again.
    pub(super) fn moved(&self) -> impl Future<Output = ()> + use<> {
        let (brokers, broker) = (self.brokers.clone(), self.broker);
        let mut changes = brokers.subscribe();
        let from = brokers.image().place(broker);
        async move {
            while changes.changed().await.is_ok() {
                let to = brokers.image().place(broker);
                // A registration that was deleted comes back, and says nothing against the connections that there are.
                if to.is_some() && to != from {
                    return;
                }
            }
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn broker(&self) -> i32 {
        self.broker
    }

    /// It answers: the next connection that fails is the first again.
    pub(super) fn reached(&self) {
        self.way.lock().failed = None;
    }

    /// What a failed call means. One that carries no reason of the broker's failed on the way.
    pub(super) fn failed(&self, status: &Status) -> LogError {
        if let Some(error) = log_error(status) {
            return error;
        }
        if is_connect_error(status) {
            let mut way = self.way.lock();
            let pause = way.failed.map_or(BACKOFF.0, |failed| (failed.pause * 2).min(BACKOFF.1));
            way.failed = Some(Failed { until: Instant::now() + pause, pause });
            return self.refused("cannot be reached");
        }
        tracing::debug!(broker = self.broker, %status, "a call to another broker failed");
        match status.code() {
            Code::Unimplemented => self.refused("has a version that does not know this call"),
            _ => self.unknown("broke the connection off"),
        }
    }

    /// Nothing was done.
    pub(super) fn refused(&self, what: &str) -> LogError {
        refusal(Reason::Unavailable, format_args!("broker {}, which leads this, {what}: try again", self.broker))
    }

    /// It may have been done.
    pub(super) fn unknown(&self, what: &str) -> LogError {
        unknown_outcome(
            Reason::Unavailable,
            format_args!("broker {}, which leads this, {what}: try again", self.broker),
        )
    }
}

/// No connection could be made: nothing was sent.
fn is_connect_error(status: &Status) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.downcast_ref::<tonic::ConnectError>().is_some() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::brokers::{INTERNAL, Image, Registered};

    fn registered(incarnation: i64, address: &str, fenced: bool) -> Image {
        let endpoints = [(INTERNAL.to_owned(), address.to_owned())].into();
        let version = "test".to_owned();
        let broker = Registered { id: 1, incarnation, fenced, draining: false, zone: None, endpoints, version };
        Image { brokers: [(1, broker)].into() }
    }

    fn connector() -> (Arc<Brokers>, Connector) {
        let brokers = Brokers::new(0, "cluster".to_owned());
        brokers.publish(registered(1, "10.0.0.1:9093", false));
        (brokers.clone(), Connector { brokers, broker: 1, way: Mutex::default() })
    }

    #[tokio::test]
    async fn failures_at_one_place_delay_no_connection_to_another() {
        let (brokers, connector) = connector();
        for (incarnation, address) in [(2, "10.0.0.1:9093"), (2, "10.0.0.2:9093"), (3, "[fd00::3]:9093")] {
            assert!(connector.channel(Purpose::Control).is_ok());
            let until = Instant::now() + Duration::from_hours(1);
            connector.way.lock().failed = Some(Failed { until, pause: BACKOFF.1 });
            assert!(connector.channel(Purpose::Control).is_err(), "it could not be reached");
            brokers.publish(registered(incarnation, address, true));
            assert!(connector.channel(Purpose::Control).is_ok(), "{incarnation} {address}");
        }
        brokers.publish(Image::default());
        assert!(connector.channel(Purpose::Control).is_err(), "it is not registered");
    }

    #[tokio::test]
    async fn who_waits_for_a_broker_hears_when_it_is_elsewhere_and_of_nothing_else() {
        let (brokers, connector) = connector();
        for (incarnation, address) in [(2, "10.0.0.1:9093"), (2, "10.0.0.2:9093")] {
            let before = brokers.image();
            let mut moved = Box::pin(connector.moved());
            assert_eq!(moved.as_mut().now_or_never(), None);
            let place = before.place(1).unwrap();
            for image in [registered(place.incarnation, &place.address, true), Image::default(), (*before).clone()] {
                brokers.publish(image);
                assert_eq!(moved.as_mut().now_or_never(), None, "fenced, deleted, made again");
            }
            brokers.publish(registered(incarnation, address, false));
            assert_eq!(moved.as_mut().now_or_never(), Some(()), "{incarnation} {address}");
        }
    }
}
