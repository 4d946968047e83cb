//! A TCP proxy whose faults can be changed while connections run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Pieces under way in one direction of a connection, and their size at most: together they bound
/// what the line holds, as a real one does.
const PIECES: usize = 64;
const PIECE_BYTES: usize = 16 * 1024;

/// How the network behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Weather {
    /// Everything arrives this much later, each way.
    pub(crate) latency: Duration,
    /// Bytes a second and way, where limited.
    pub(crate) bandwidth: Option<u64>,
    /// Nothing arrives until this is over, as from a server that is stopped.
    pub(crate) held: bool,
    /// Bytes vanish and nobody is told: connections stay open, also new ones. Those that lost
    /// bytes are reset once it is over, since TCP never delivers a stream with a hole.
    pub(crate) half_open: bool,
    /// Connections are reset, and new ones too.
    pub(crate) down: bool,
}

/// What connections watch: the weather, and how often all were reset.
type Sky = (Weather, u64);

struct Shared {
    target: String,
    sky: watch::Receiver<Sky>,
    /// Replies still to be cut off, and what the request says that they answer.
    cuts: AtomicU32,
    needle: &'static [u8],
    done: AtomicU32,
}

/// A running proxy; ends when it is dropped.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    sky: watch::Sender<Sky>,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

impl Proxy {
    /// Listens on `port` (0: a free one) and passes on to `target`, `host:port`. `needle` marks
    /// the requests whose replies [`Proxy::cut_replies`] cuts.
    pub(crate) async fn start(port: u16, target: &str, needle: &'static [u8]) -> Result<Proxy> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.context("proxy")?;
        let port = listener.local_addr()?.port();
        let (sky, seen) = watch::channel(Sky::default());
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            sky: seen,
            cuts: AtomicU32::new(0),
            needle,
            done: AtomicU32::new(0),
        });
        let stop = CancellationToken::new();
        let (token, passing) = (stop.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            loop {
                let client = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = token.cancelled() => return,
                };
                let Ok((client, _)) = client else { continue };
                let (shared, token) = (Arc::clone(&passing), token.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = connection(client, &shared) => {}
                        () = token.cancelled() => {}
                    }
                });
            }
        });
        Ok(Proxy { port, sky, shared, _stop: stop.drop_guard() })
    }

    /// Changes the weather for all connections, at once.
    pub(crate) fn set(&self, weather: Weather) {
        self.sky.send_modify(|sky| sky.0 = weather);
    }

    /// Resets every connection; new ones work.
    pub(crate) fn reset(&self) {
        self.sky.send_modify(|sky| sky.1 += 1);
    }

    /// Of the next `count` marked requests the server's reply is cut off, and the connection reset.
    pub(crate) fn cut_replies(&self, count: u32) {
        self.shared.cuts.store(count, Ordering::SeqCst);
    }

    /// Replies cut off so far.
    pub(crate) fn cut(&self) -> u32 {
        self.shared.done.load(Ordering::SeqCst)
    }
}

/// `url` with another port on this machine, through which a proxy listens.
pub(crate) fn through(url: &str, port: u16) -> Result<String> {
    let (before, _, after) = split(url).context("an address that is no url")?;
    Ok(format!("{before}127.0.0.1:{port}{after}"))
}

/// `host:port` of a url.
pub(crate) fn address(url: &str) -> Result<&str> {
    Ok(split(url).context("an address that is no url")?.1)
}

/// What comes before host and port, these, and what comes after.
fn split(url: &str) -> Option<(&str, &str, &str)> {
    let authority = url.find("://")? + 3;
    let path = url[authority..].find(['/', '?']).map_or(url.len(), |at| authority + at);
    let host = url[authority..path].rfind('@').map_or(authority, |at| authority + at + 1);
    Some((&url[..host], &url[host..path], &url[path..]))
}

impl Shared {
    fn is_to_be_cut(&self, request: &[u8]) -> bool {
        let needle = self.needle;
        if needle.is_empty() || !request.windows(needle.len()).any(|word| word == needle) {
            return false;
        }
        let cut = |left: u32| left.checked_sub(1);
        self.cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, cut).is_ok()
    }
}

/// A connection that is to be reset.
struct Broken;

impl From<std::io::Error> for Broken {
    fn from(_: std::io::Error) -> Broken {
        Broken
    }
}

async fn connection(mut client: TcpStream, shared: &Shared) {
    let mut sky = shared.sky.clone();
    let (weather, resets) = *sky.borrow_and_update();
    if weather.down {
        return reset(&client);
    }
    let Ok(mut server) = TcpStream::connect(&shared.target).await else { return reset(&client) };
    // Small requests must not wait for an acknowledgement that latency delays further.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let cutting = AtomicBool::new(false);
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let passed = async {
        tokio::try_join!(
            pass(from_client, to_server, shared, Way::Up, &cutting),
            pass(from_server, to_client, shared, Way::Down, &cutting),
        )
    };
    let ended = tokio::select! {
        passed = passed => passed.is_ok(),
        // An error means that the proxy is gone.
        _ = sky.wait_for(|(now, count)| now.down || *count != resets) => false,
    };
    if !ended {
        reset(&client);
        reset(&server);
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Up,
    Down,
}

/// Passes bytes one way until they end.
async fn pass(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    shared: &Shared,
    way: Way,
    cutting: &AtomicBool,
) -> Result<(), Broken> {
    let (sender, receiver) = mpsc::channel(PIECES);
    tokio::try_join!(take(from, sender, shared, way, cutting), give(to, receiver, shared))?;
    Ok(())
}

/// A piece, and when it arrives at the earliest.
type Piece = (Instant, Vec<u8>);

async fn take(
    mut from: ReadHalf<'_>,
    line: mpsc::Sender<Piece>,
    shared: &Shared,
    way: Way,
    cutting: &AtomicBool,
) -> Result<(), Broken> {
    let mut sky = shared.sky.clone();
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        if from.read_buf(&mut piece).await? == 0 {
            return Ok(());
        }
        let (now, _) = *sky.borrow_and_update();
        if now.half_open {
            // Whatever comes is lost, and the connection with it once this is over.
            while sky.borrow_and_update().0.half_open {
                piece.clear();
                tokio::select! {
                    read = from.read_buf(&mut piece) => if read? == 0 { return Err(Broken) },
                    changed = sky.changed() => if changed.is_err() { return Err(Broken) },
                }
            }
            return Err(Broken);
        }
        match way {
            // The server has acted on the request, and the client never hears of it.
            Way::Down if cutting.load(Ordering::SeqCst) => {
                shared.done.fetch_add(1, Ordering::SeqCst);
                return Err(Broken);
            }
            Way::Up if shared.is_to_be_cut(&piece) => cutting.store(true, Ordering::SeqCst),
            Way::Up | Way::Down => {}
        }
        let _ = line.send((Instant::now() + now.latency, piece)).await;
    }
}

async fn give(
    mut to: WriteHalf<'_>,
    mut line: mpsc::Receiver<Piece>,
    shared: &Shared,
) -> Result<(), Broken> {
    let mut sky = shared.sky.clone();
    while let Some((due, piece)) = line.recv().await {
        tokio::time::sleep_until(due).await;
        let bandwidth = sky.wait_for(|(now, _)| !now.held).await.map_err(|_| Broken)?.0.bandwidth;
        if let Some(limit) = bandwidth {
            let seconds = piece.len() as f64 / limit.max(1) as f64;
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        }
        to.write_all(&piece).await?;
    }
    to.shutdown().await?;
    Ok(())
}

fn reset(stream: &TcpStream) {
    // Closing with data unread or with this option sends RST; where it fails the socket is gone.
    let _ = stream.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In front of a server that sends back what it gets.
    async fn in_front_of_an_echo() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let address = listener.local_addr().expect("address").to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        Proxy::start(0, &address, b"").await.expect("starts")
    }

    async fn through(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(("127.0.0.1", proxy.port)).await.expect("connects")
    }

    #[tokio::test]
    async fn every_byte_arrives_in_order_and_late() {
        let latency = Duration::from_millis(20);
        let proxy = in_front_of_an_echo().await;
        proxy.set(Weather { latency, ..Weather::default() });
        let mut stream = through(&proxy).await;
        let sent: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let began = Instant::now();
        let mut back = vec![0; sent.len()];
        let (mut from, mut to) = stream.split();
        let (wrote, read) = tokio::join!(to.write_all(&sent), from.read_exact(&mut back));
        wrote.expect("written");
        read.expect("read");
        assert!(back == sent, "the bytes are those that were sent");
        assert!(began.elapsed() >= latency * 2);
        to.shutdown().await.expect("our end");
        assert_eq!(from.read(&mut back).await.expect("no reset"), 0, "and the end arrives as such");
    }

    #[tokio::test]
    async fn nothing_passes_while_it_is_held() {
        let proxy = in_front_of_an_echo().await;
        let mut stream = through(&proxy).await;
        proxy.set(Weather { held: true, ..Weather::default() });
        stream.write_all(b"x").await.expect("written");
        let mut byte = [0];
        let waited = tokio::time::timeout(Duration::from_millis(50), stream.read_exact(&mut byte));
        assert!(waited.await.is_err(), "it is held back");
        proxy.set(Weather::default());
        stream.read_exact(&mut byte).await.expect("it goes on");
        assert_eq!(&byte, b"x");
    }

    #[tokio::test]
    async fn a_reset_ends_connections_and_new_ones_work() {
        let proxy = in_front_of_an_echo().await;
        let mut stream = through(&proxy).await;
        stream.write_all(b"x").await.expect("written");
        let mut byte = [0];
        stream.read_exact(&mut byte).await.expect("it is connected");
        proxy.reset();
        assert!(stream.read_exact(&mut byte).await.is_err());
        let mut stream = through(&proxy).await;
        stream.write_all(b"y").await.expect("written");
        stream.read_exact(&mut byte).await.expect("a new one works");
    }

    #[test]
    fn only_the_address_of_a_url_changes() {
        for (url, expected) in [
            ("postgres://a:b@h:1/x?y=z", "postgres://a:b@127.0.0.1:2/x?y=z"),
            ("postgres://h:1/x", "postgres://127.0.0.1:2/x"),
            ("postgres://a@h:1", "postgres://a@127.0.0.1:2"),
        ] {
            assert_eq!(super::through(url, 2).expect("a url"), expected);
            assert_eq!(address(url).expect("a url"), "h:1");
        }
    }
}
