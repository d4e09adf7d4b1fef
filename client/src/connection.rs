//! Connections to brokers: three to each, so that data cannot hold up control calls, nor produce hold up fetch; and more
//! where many producers and consumers share a client, for a broker allows each connection 64 streams.
//!
//! They connect when they are first used and again by themselves after a fault (tonic's lazy channels); whoever uses one
//! decides how long to wait between tries. Frame and window sizes are those measured for Taffrail: 256 KiB frames carry
//! twice what 16 KiB frames do; a client's windows are what it lets a broker send unasked.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::config::ClientConfig;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of an HTTP/2 frame.
const FRAME: u32 = 256 << 10;
/// Bytes that a broker may send on one stream before this side has read them.
const STREAM_WINDOW: u32 = 4 << 20;
/// The same for a connection.
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Bytes of a message; far above a broker's largest batch, and one batch is always sent.
pub(crate) const MAX_MESSAGE: usize = 40 << 20;
/// A connection is probed this often, and given up when that stays unanswered so long: a broker that sleeps, or whose node has
/// lost its power, says nothing. The other brokers take it for dead after six seconds too.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(4));
/// Streams that stay open on one connection; calls have the rest of what a broker allows.
const STREAMS: usize = 32;
/// Service account tokens rotate within an hour.
const TOKEN_LIFETIME: Duration = Duration::from_mins(1);

/// A connection that adds the caller's credentials to each call.
pub(crate) type Connection = InterceptedService<Channel, Credentials>;

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// Record batches to the broker.
    Produce,
    /// Record batches from the broker.
    Fetch,
    /// Everything small.
    Control,
}

/// All connections of a client.
pub(crate) struct Connections {
    credentials: Credentials,
    connect_timeout: Duration,
    dial: fn(Endpoint) -> Channel,
    open: Mutex<HashMap<(Purpose, String), Vec<Open>>>,
}

/// A connection, and a mark that each of its streams has a copy of.
struct Open {
    connection: Connection,
    mark: Arc<()>,
}

impl Open {
    fn streams(&self) -> usize {
        Arc::strong_count(&self.mark) - 1
    }
}

/// A connection with a place for one stream, which is given back when this is dropped.
pub(crate) struct StreamPlace {
    pub(crate) connection: Connection,
    _mark: Arc<()>,
}

impl Connections {
    pub(crate) fn new(config: &ClientConfig) -> Self {
        Self {
            credentials: Credentials::new(config.token_file.clone()),
            connect_timeout: config.connect_timeout,
            dial: config.dial,
            open: Mutex::default(),
        }
    }

    /// The connection to `endpoint` (`host:port`) for calls. Does not wait: it connects when it is used.
    pub(crate) fn get(&self, purpose: Purpose, endpoint: &str) -> Result<Connection> {
        let mut open = self.open.lock();
        let there = open.entry((purpose, endpoint.to_owned())).or_default();
        if there.is_empty() {
            there.push(self.connect(endpoint)?);
        }
        Ok(there[0].connection.clone())
    }

    /// A connection to `endpoint` for a stream that stays open: one that has room, or one more. Further ones than the first go
    /// when they have no streams any more.
    pub(crate) fn place(&self, purpose: Purpose, endpoint: &str) -> Result<StreamPlace> {
        let mut open = self.open.lock();
        let there = open.entry((purpose, endpoint.to_owned())).or_default();
        let mut is_first = true;
        there.retain(|open| std::mem::take(&mut is_first) || open.streams() > 0);
        let at = there.iter().position(|open| open.streams() < STREAMS).unwrap_or(there.len());
        if at == there.len() {
            there.push(self.connect(endpoint)?);
        }
        Ok(StreamPlace { connection: there[at].connection.clone(), _mark: Arc::clone(&there[at].mark) })
    }

    fn connect(&self, endpoint: &str) -> Result<Open> {
        let connection = InterceptedService::new(self.channel(endpoint)?, self.credentials.clone());
        Ok(Open { connection, mark: Arc::default() })
    }

    fn channel(&self, endpoint: &str) -> Result<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{endpoint}")).map_err(|e| {
            let message = format!("{endpoint:?} is no address of a broker ({e}): write host:port");
            Error::local(ErrorKind::InvalidArgument, message)
        })?;
        let endpoint = endpoint
            .max_frame_size(FRAME)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .connect_timeout(self.connect_timeout)
            .http2_keep_alive_interval(KEEP_ALIVE.0)
            .keep_alive_timeout(KEEP_ALIVE.1)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        Ok((self.dial)(endpoint))
    }
}

/// Adds `authorization: Bearer …` to calls when there is a token file.
#[derive(Clone)]
pub(crate) struct Credentials(Option<Arc<TokenFile>>);

struct TokenFile {
    path: PathBuf,
    read: Mutex<Option<(Instant, MetadataValue<Ascii>)>>,
}

impl Credentials {
    fn new(path: Option<PathBuf>) -> Self {
        Self(path.map(|path| Arc::new(TokenFile { path, read: Mutex::default() })))
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(file) = &self.0 {
            request.metadata_mut().insert("authorization", file.token(Instant::now())?);
        }
        Ok(request)
    }
}

impl TokenFile {
    /// The token, read again when it was read more than a minute before `now`.
    fn token(&self, now: Instant) -> Result<MetadataValue<Ascii>, Status> {
        let mut read = self.read.lock();
        if let Some((at, token)) = &*read
            && now.saturating_duration_since(*at) < TOKEN_LIFETIME
        {
            return Ok(token.clone());
        }
        let fault = |why: String| {
            Status::unauthenticated(format!("token file {}: {why}; check the path and its rights", self.path.display()))
        };
        let text = std::fs::read_to_string(&self.path).map_err(|e| fault(e.to_string()))?;
        let value = format!("Bearer {}", text.trim());
        let mut token: MetadataValue<Ascii> = value.parse().map_err(|_| fault("it holds no token".to_owned()))?;
        token.set_sensitive(true);
        *read = Some((now, token.clone()));
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_read_again_after_a_minute() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "one\n").unwrap();
        let file = TokenFile { path: path.clone(), read: Mutex::default() };
        let start = Instant::now();
        assert_eq!(file.token(start).unwrap().to_str().unwrap(), "Bearer one");
        std::fs::write(&path, "two").unwrap();
        assert_eq!(file.token(start + Duration::from_secs(59)).unwrap().to_str().unwrap(), "Bearer one");
        assert_eq!(file.token(start + Duration::from_secs(61)).unwrap().to_str().unwrap(), "Bearer two");
    }

    #[test]
    fn a_missing_token_file_is_named() {
        let file = TokenFile { path: "/nonexistent/token".into(), read: Mutex::default() };
        assert!(file.token(Instant::now()).unwrap_err().message().contains("/nonexistent/token"));
    }

    #[tokio::test]
    async fn each_purpose_has_a_connection_of_its_own() {
        let connections = Connections::new(&ClientConfig::new("a"));
        connections.get(Purpose::Produce, "a:1").unwrap();
        connections.get(Purpose::Fetch, "a:1").unwrap();
        connections.get(Purpose::Fetch, "a:1").unwrap();
        assert_eq!(connections.open.lock().len(), 2);
    }

    #[tokio::test]
    async fn streams_never_fill_a_connection_and_give_their_places_back() {
        let connections = Connections::new(&ClientConfig::new("a"));
        let place = || connections.place(Purpose::Fetch, "a:1").unwrap();
        let counts = || connections.open.lock().values().flatten().map(Open::streams).collect::<Vec<_>>();
        let mut places: Vec<_> = (0..=STREAMS * 2).map(|_| place()).collect();
        assert_eq!(counts(), [STREAMS, STREAMS, 1]);
        connections.get(Purpose::Fetch, "a:1").unwrap();
        assert_eq!(counts().len(), 3, "calls need no connection of their own");
        places.drain(..STREAMS);
        let again = place();
        assert_eq!(counts(), [1, STREAMS, 1]);
        drop((places, again));
        let _last = place();
        assert_eq!(counts(), [1], "connections without streams go");
    }
}
