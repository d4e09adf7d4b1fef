//! Connections to brokers: three to each, so that data cannot hold up control calls, nor produce hold up fetch.
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
/// An idle connection is probed this often, so that one whose peer vanished is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
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
    open: Mutex<HashMap<(Purpose, String), Connection>>,
}

impl Connections {
    pub(crate) fn new(config: &ClientConfig) -> Self {
        Self {
            credentials: Credentials::new(config.token_file.clone()),
            connect_timeout: config.connect_timeout,
            open: Mutex::default(),
        }
    }

    /// The connection to `endpoint` (`host:port`) for `purpose`. Does not wait: it connects when it is used.
    pub(crate) fn get(&self, purpose: Purpose, endpoint: &str) -> Result<Connection> {
        let key = (purpose, endpoint.to_owned());
        let mut open = self.open.lock();
        if let Some(connection) = open.get(&key) {
            return Ok(connection.clone());
        }
        let connection = InterceptedService::new(self.channel(endpoint)?, self.credentials.clone());
        open.insert(key, connection.clone());
        Ok(connection)
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
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        Ok(endpoint.connect_lazy())
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
}
