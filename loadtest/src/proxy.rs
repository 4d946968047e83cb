//! A TCP proxy that makes a server far away, or stops it: what goes through arrives later, or waits.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Pieces under way in one direction of a connection, and their size at most: together they bound
/// what the line holds, as a real one does.
const PIECES: usize = 64;
const PIECE_BYTES: usize = 16 * 1024;

/// The proxy; ends when it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    stopped: watch::Sender<bool>,
    _end: DropGuard,
}

impl Proxy {
    /// Listens on a port of its own and passes on to `target` (`host:port`), each way `delay` later.
    pub(crate) async fn start(target: String, delay: Duration) -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (stopped, state) = watch::channel(false);
        let end = CancellationToken::new();
        let token = end.clone();
        tokio::spawn(async move {
            loop {
                let client = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = token.cancelled() => return,
                };
                let Ok((client, _)) = client else { continue };
                let (target, state, token) = (target.clone(), state.clone(), token.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        // Whoever uses the proxy sees the closed connection.
                        _ = connect(client, &target, delay, state) => {}
                        () = token.cancelled() => {}
                    }
                });
            }
        });
        Ok(Proxy { address, stopped, _end: end.drop_guard() })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops passing anything on, as a server that is stopped answers nothing; or goes on.
    pub(crate) fn stop(&self, stopped: bool) {
        self.stopped.send_replace(stopped);
    }
}

async fn connect(
    client: TcpStream,
    target: &str,
    delay: Duration,
    state: watch::Receiver<bool>,
) -> Result<()> {
    let server = TcpStream::connect(target).await.with_context(|| target.to_owned())?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(
        pass(from_client, to_server, delay, state.clone()),
        pass(from_server, to_client, delay, state),
    )?;
    Ok(())
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
    mut state: watch::Receiver<bool>,
) -> Result<()> {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
    let read = async move {
        loop {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            if from.read_buf(&mut piece).await? == 0 {
                return Ok::<(), anyhow::Error>(());
            }
            if sender.send((Instant::now() + delay, piece)).await.is_err() {
                return Ok(());
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = receiver.recv().await {
            tokio::time::sleep_until(due).await;
            state.wait_for(|stopped| !stopped).await?;
            to.write_all(&piece).await?;
        }
        to.shutdown().await?;
        Ok(())
    };
    tokio::try_join!(read, write)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let address = listener.local_addr().expect("address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn every_byte_arrives_in_order_and_late() {
        let delay = Duration::from_millis(20);
        let proxy = Proxy::start(echo().await.to_string(), delay).await.expect("starts");
        let mut stream = TcpStream::connect(proxy.address()).await.expect("connects");
        let sent: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let began = Instant::now();
        let mut back = vec![0; sent.len()];
        let (mut from, mut to) = stream.split();
        let (wrote, read) = tokio::join!(to.write_all(&sent), from.read_exact(&mut back));
        wrote.expect("written");
        read.expect("read");
        assert!(back == sent, "the bytes are those that were sent");
        assert!(began.elapsed() >= delay * 2);
    }

    #[tokio::test]
    async fn nothing_passes_while_it_is_stopped() {
        let proxy = Proxy::start(echo().await.to_string(), Duration::ZERO).await.expect("starts");
        let mut stream = TcpStream::connect(proxy.address()).await.expect("connects");
        proxy.stop(true);
        stream.write_all(b"x").await.expect("written");
        let mut byte = [0];
        let waited = tokio::time::timeout(Duration::from_millis(50), stream.read_exact(&mut byte));
        assert!(waited.await.is_err(), "it is held back");
        proxy.stop(false);
        stream.read_exact(&mut byte).await.expect("it goes on");
        assert_eq!(&byte, b"x");
    }
}
