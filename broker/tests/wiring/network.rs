//! Turmoil's TCP, for brokers and clients.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use taffrail_broker::server::{Network, Socket, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;
use turmoil::net::{TcpListener, TcpStream};

/// How simulated machines listen and connect.
pub(crate) fn network() -> Network {
    Network::new::<Listening>(|endpoint| dial(&endpoint))
}

/// A channel that connects when it is used; hosts are found by their names.
pub(crate) fn dial(endpoint: &Endpoint) -> Channel {
    endpoint.connect_with_connector_lazy(service_fn(|uri: Uri| async move { connect(&uri).await.map(TokioIo::new) }))
}

async fn connect(uri: &Uri) -> io::Result<TcpStream> {
    let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(80));
    TcpStream::connect((host, port)).await
}

struct Listening(TcpListener);

struct Wire(TcpStream);

impl Socket for Listening {
    type Stream = Wire;

    async fn listen(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    async fn accept(&self) -> io::Result<(Wire, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((Wire(stream), peer))
    }
}

impl Stream for Wire {
    fn set_up(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    async fn peek(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.peek(buffer).await
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
