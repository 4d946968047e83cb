//! The server's TCP connections, which can be cut in the middle of a frame.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Bytes that a connection may still write; as good as endless until it is lit.
#[derive(Debug, Clone)]
pub(super) struct Fuse(Arc<AtomicUsize>);

impl Fuse {
    fn new() -> Fuse {
        Fuse(Arc::new(AtomicUsize::new(usize::MAX)))
    }

    /// The connection ends behind `bytes` more.
    pub(super) fn light(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Release);
    }
}

impl Connected<IncomingStream<'_, Wires>> for Fuse {
    fn connect_info(stream: IncomingStream<'_, Wires>) -> Fuse {
        stream.io().fuse.clone()
    }
}

/// Takes connections that can be cut.
#[derive(Debug)]
pub(super) struct Wires(pub(super) TcpListener);

impl Listener for Wires {
    type Io = Wire;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Wire, SocketAddr) {
        let (stream, addr) = Listener::accept(&mut self.0).await;
        (Wire { stream, fuse: Fuse::new() }, addr)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// One such connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    fuse: Fuse,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let left = self.fuse.0.load(Ordering::Acquire);
        if left == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let from = from.get(..left).unwrap_or(from);
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, from))?;
        if left != usize::MAX {
            self.fuse.0.store(left - written, Ordering::Release);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
