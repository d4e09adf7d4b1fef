//! One connection: its handshake, its HTTP/2 settings, and what every request on it is given.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::service::Routes;
use tower::Service;

use super::connections::Stage;
use super::network::Stream;
use super::request_body::RequestBody;
use super::response_body::ResponseBody;
use super::{Drain, Listener, Shared};
use crate::memory::{Account, Charge};
use crate::security::{Caller, FORWARDED_FOR, Principal, Unauthenticated};
use crate::service::status::{IntoLogError, status};

/// How connections differ by who makes them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Protocol {
    max_streams: u32,
    /// What may be on its way in one stream.
    stream_window: u32,
    /// What may be on its way in one connection: the least and the most.
    connection_window: (usize, usize),
    /// Callers are brokers: they say for whom they ask.
    trusted: bool,
}

impl Protocol {
    /// For clients. The least window is what HTTP/2 gives; a stream gained 3 % with more.
    pub(super) const CLIENTS: Self = Self {
        max_streams: MAX_STREAMS,
        stream_window: 1 << 20,
        connection_window: (64 << 10, 2 << 20),
        trusted: false,
    };
    /// For other brokers, which are few and forward what many clients send.
    pub(super) const BROKERS: Self =
        Self { max_streams: 4_096, stream_window: 8 << 20, connection_window: (1 << 20, 16 << 20), trusted: true };
}

impl Protocol {
    /// Not for brokers among themselves.
    pub(super) fn is_for_clients(self) -> bool {
        !self.trusted
    }
}

/// Streams of a connection. A client that needs more opens another connection.
pub(crate) const MAX_STREAMS: u32 = 64;
/// HTTP/2 frames: large ones are what makes a stream fast (16 KiB gave half of the speed of 256 KiB).
const MAX_FRAME_BYTES: u32 = 256 << 10;
/// What HTTP/2 keeps of one stream's answer when the peer does not read.
const SEND_BUFFER_BYTES: usize = 512 << 10;
/// Headers of a request, all together.
const MAX_HEADER_BYTES: u32 = 8 << 10;
/// How long a peer may take to say that it speaks HTTP/2.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that is silent is asked whether it is alive, and dropped when it does not answer.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// How an HTTP/2 connection begins (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a handler knows of the connection that its request came on. In the request's extensions, shared by all that came on
/// it.
#[derive(Debug)]
pub struct Connection {
    /// The other end.
    pub peer: SocketAddr,
    /// This end.
    pub local: SocketAddr,
    /// By which it came.
    pub listener: Arc<Listener>,
    /// What its requests hold of the memory.
    pub requests: Arc<Account>,
    /// What its answers hold of the memory.
    pub responses: Arc<Account>,
    /// Whether the broker stops.
    pub drain: Drain,
}

/// Charges of answers that a handler has made and not yet seen leave; they go with the next bytes that are sent and are
/// given back when those are. In the request's extensions.
#[derive(Clone, Debug, Default)]
pub struct Outbox(Arc<Mutex<Vec<Charge>>>);

impl Outbox {
    /// Puts the charge of an answer that is about to be encoded.
    pub fn put(&self, charge: Charge) {
        self.0.lock().push(charge);
    }

    pub(super) fn take(&self) -> Vec<Charge> {
        std::mem::take(&mut self.0.lock())
    }
}

/// Grants connection windows out of their share of the memory: large ones while there are few connections.
#[derive(Debug)]
pub(super) struct Windows {
    total: usize,
    bounds: (usize, usize),
    granted: AtomicUsize,
}

impl Windows {
    pub(super) fn new(total: usize, protocol: Protocol) -> Self {
        Self { total, bounds: protocol.connection_window, granted: AtomicUsize::new(0) }
    }

    fn grant(&self) -> Grant<'_> {
        let (least, most) = self.bounds;
        let free = self.total.saturating_sub(self.granted.load(Ordering::Relaxed));
        let bytes = (free / 32).clamp(least, most);
        self.granted.fetch_add(bytes, Ordering::Relaxed);
        Grant { windows: self, bytes }
    }
}

struct Grant<'a> {
    windows: &'a Windows,
    bytes: usize,
}

impl Drop for Grant<'_> {
    fn drop(&mut self) {
        self.windows.granted.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Serves a connection to its end.
pub(super) async fn serve<S: Stream>(stream: S, peer: SocketAddr, listener: Arc<Listener>, shared: Arc<Shared>) {
    shared.metrics.connections.inc();
    if let Err(error) = serve_stream(stream, peer, listener, &shared).await {
        tracing::debug!(%peer, %error, "connection ended");
    }
    shared.metrics.connections.dec();
}

/// Why a connection was ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("no HTTP/2 preface came")]
    NoHandshake,
    #[error("answers were not read while memory was short")]
    Stalled,
    #[error("the broker stops")]
    Stopped,
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Socket(#[from] std::io::Error),
}

async fn serve_stream<S: Stream>(
    mut stream: S,
    peer: SocketAddr,
    listener: Arc<Listener>,
    shared: &Arc<Shared>,
) -> Result<(), End> {
    let local = stream.set_up()?;
    tokio::select! {
        ok = shakes_hands(&mut stream) => if !ok { return Err(End::NoHandshake) },
        () = tokio::time::sleep(HANDSHAKE_TIMEOUT) => return Err(End::NoHandshake),
        () = shared.drain.announced.cancelled() => return Err(End::Stopped),
    }
    let connection = Arc::new(Connection {
        peer,
        local,
        listener,
        requests: Account::new(&shared.requests),
        responses: Account::new(&shared.responses),
        drain: shared.drain.clone(),
    });
    let window = shared.windows.grant();
    let mut known = shared.open.add(&connection.responses);
    let entry = Entry { shared: Arc::clone(shared), connection };
    let http = pin!(http2(shared.protocol, window.bytes).serve_connection(TokioIo::new(stream), entry));
    drive(http, &mut known.stage).await
}

/// Waits for the preface without taking it.
async fn shakes_hands(stream: &mut impl Stream) -> bool {
    let mut begin = [0; PREFACE.len()];
    loop {
        match stream.peek(&mut begin).await {
            Ok(length) if length == begin.len() => return begin == *PREFACE,
            Ok(0) | Err(_) => return false,
            Ok(length) if !PREFACE.starts_with(&begin[..length]) => return false,
            Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn http2(protocol: Protocol, window: usize) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(protocol.max_streams)
        .max_frame_size(MAX_FRAME_BYTES)
        .initial_stream_window_size(protocol.stream_window)
        .initial_connection_window_size(window as u32)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(MAX_HEADER_BYTES)
        .keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1);
    builder
}

/// Runs a connection until it ends, or is ended.
async fn drive<S: Stream>(
    mut http: Pin<&mut http2::Connection<TokioIo<S>, Entry, TokioExecutor>>,
    stage: &mut watch::Receiver<Stage>,
) -> Result<(), End> {
    loop {
        tokio::select! {
            biased;
            ended = http.as_mut() => return Ok(ended?),
            changed = stage.changed() => match *stage.borrow_and_update() {
                _ if changed.is_err() => return Err(End::Stopped),
                Stage::Open => {}
                Stage::Draining => http.as_mut().graceful_shutdown(),
                Stage::Stalled => return Err(End::Stalled),
                Stage::Ended => return Err(End::Stopped),
            },
        }
    }
}

/// Where requests enter: makes the [`Caller`] and meters both directions.
#[derive(Clone)]
struct Entry {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
}

impl Entry {
    fn caller<B>(&self, request: &Request<B>) -> Result<Caller, Unauthenticated> {
        if self.shared.protocol.trusted {
            let Some(named) = request.headers().get(FORWARDED_FOR) else {
                return Ok(Caller { principal: Principal::Anonymous, address: self.connection.peer });
            };
            return named.to_str().ok().and_then(Caller::parse).ok_or(Unauthenticated::Missing);
        }
        let token = request.headers().get(http::header::AUTHORIZATION).map(http::HeaderValue::as_bytes);
        self.shared.options.authenticator.authenticate(self.connection.peer, token)
    }
}

/// Health is asked by machines that have no token, and tells nothing else.
fn is_health(path: &str) -> bool {
    path.starts_with("/grpc.health.v1.Health/")
}

impl hyper::service::Service<Request<Incoming>> for Entry {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let outbox = Outbox::default();
        let responses = Arc::clone(&self.connection.responses);
        match self.caller(&request) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
            }
            Err(_) if is_health(request.uri().path()) => {}
            Err(error) => {
                let refused = status(&error.into_log_error()).into_http::<tonic::body::Body>();
                return Box::pin(async move { Ok(refused.map(|body| ResponseBody::new(body, responses, outbox))) });
            }
        }
        if let Some(authority) = request.uri().authority().cloned() {
            request.extensions_mut().insert(authority);
        }
        request.extensions_mut().insert(Arc::clone(&self.connection));
        request.extensions_mut().insert(outbox.clone());
        let requests = Arc::clone(&self.connection.requests);
        let mut routes: Routes = self.shared.routes.clone();
        Box::pin(async move {
            let answered = routes.call(request.map(|body| RequestBody::new(body, requests))).await?;
            Ok(answered.map(|body| ResponseBody::new(body, responses, outbox)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_large_for_few_connections_and_bounded_for_many() {
        let windows = Windows::new(64 << 20, Protocol::CLIENTS);
        let first = windows.grant();
        assert_eq!(first.bytes, 2 << 20);
        let many: Vec<_> = (0..10_000).map(|_| windows.grant()).collect();
        assert_eq!(many.last().map(|grant| grant.bytes), Some(64 << 10));
        let above_least: usize = many.iter().map(|grant| grant.bytes - (64 << 10)).sum();
        assert!(above_least <= 64 << 20);
        drop(many);
        drop(first);
        assert_eq!(windows.granted.load(Ordering::Relaxed), 0);
    }
}
