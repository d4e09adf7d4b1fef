//! How brokers listen and reach each other: by TCP. Simulations put a network of their own in its place.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tonic::transport::{Channel, Endpoint};

use super::{Listener, Shared, accept};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1_024;
/// What the kernel keeps of a connection's answers beyond what is on its way (`TCP_NOTSENT_LOWAT`). Its buffer grows to
/// 4 MiB otherwise: memory that nobody accounts for, and a millisecond of copying at a time while others wait.
const UNSENT_BYTES: u32 = 512 << 10;

/// Where peers connect.
pub trait Socket: Sized + Send + Sync + 'static {
    /// To one peer.
    type Stream: Stream;
    /// Listens; port 0 takes any that is free.
    fn listen(address: SocketAddr) -> impl Future<Output = io::Result<Self>> + Send;
    /// Where it listens.
    fn local_addr(&self) -> io::Result<SocketAddr>;
    /// The next peer, and where it is.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;
}

/// A connection to a peer.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Sets its options; this end of it.
    fn set_up(&self) -> io::Result<SocketAddr>;
    /// Reads without taking.
    fn peek(&mut self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;
}

impl Socket for TcpListener {
    type Stream = TcpStream;

    async fn listen(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        Self::accept(self).await
    }
}

impl Stream for TcpStream {
    fn set_up(&self) -> io::Result<SocketAddr> {
        self.set_nodelay(true)?;
        SockRef::from(self).set_tcp_notsent_lowat(UNSENT_BYTES)?;
        self.local_addr()
    }

    async fn peek(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Self::peek(self, buffer).await
    }
}

/// Where a listener is, and what accepts there until it is dropped.
pub(super) type Listening = (SocketAddr, BoxFuture<'static, ()>);

/// A network: each connection is served by code that is made for its kind.
#[derive(Clone, Copy)]
pub struct Network {
    listen: fn(Arc<Listener>, Arc<Shared>) -> BoxFuture<'static, io::Result<Listening>>,
    dial: fn(Endpoint) -> Channel,
}

impl Network {
    /// The machine's own.
    pub const TCP: Self = Self { listen: listen::<TcpListener>, dial: |endpoint| endpoint.connect_lazy() };

    /// One with these sockets, where channels are made so.
    pub fn new<S: Socket>(dial: fn(Endpoint) -> Channel) -> Self {
        Self { listen: listen::<S>, dial }
    }

    /// A channel that connects when it is used.
    pub fn dial(self, endpoint: Endpoint) -> Channel {
        (self.dial)(endpoint)
    }

    pub(super) async fn listen(self, listener: Arc<Listener>, shared: Arc<Shared>) -> io::Result<Listening> {
        (self.listen)(listener, shared).await
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::TCP
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

fn listen<S: Socket>(listener: Arc<Listener>, shared: Arc<Shared>) -> BoxFuture<'static, io::Result<Listening>> {
    Box::pin(async move {
        let socket = S::listen(listener.address).await?;
        let address = socket.local_addr()?;
        let accepting: BoxFuture<'static, ()> = Box::pin(accept(socket, listener, shared));
        Ok((address, accepting))
    })
}
