//! A TCP proxy whose faults can be changed while connections run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Bytes passed on at once.
const CHUNK: usize = 16 * 1024;

/// How the network behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Weather {
    /// Each chunk waits this long, each way.
    pub(crate) latency: Duration,
    /// Bytes a second and way, where limited.
    pub(crate) bandwidth: Option<u64>,
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

/// A running proxy.
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
        let listener = TcpListener::bind(("127.0.0.1", port)).await.context("fault proxy")?;
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

async fn connection(client: TcpStream, shared: &Shared) {
    let mut sky = shared.sky.clone();
    let (weather, resets) = *sky.borrow_and_update();
    if weather.down {
        return reset(&client);
    }
    let Ok(server) = TcpStream::connect(&shared.target).await else { return reset(&client) };
    // Small requests must not wait for an acknowledgement that latency delays further.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client, server) = (&client, &server);
    let cutting = AtomicBool::new(false);
    let up = pass(client, server, shared, Way::Up, &cutting);
    let down = pass(server, client, shared, Way::Down, &cutting);
    let broken = async {
        // An error means that the proxy is gone.
        let _ = sky.wait_for(|(now, count)| now.down || *count != resets).await;
    };
    tokio::select! {
        () = up => {}
        () = down => {}
        () = broken => {}
    }
    reset(client);
    reset(server);
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Up,
    Down,
}

/// Passes bytes one way until the connection is to end.
async fn pass(from: &TcpStream, to: &TcpStream, shared: &Shared, way: Way, cutting: &AtomicBool) {
    let mut sky = shared.sky.clone();
    let mut buffer = vec![0; CHUNK];
    let (mut from, mut to) = (Half(from), Half(to));
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        let (now, _) = *sky.borrow_and_update();
        if now.half_open {
            // Whatever comes is lost, and the connection with it once this is over.
            while sky.borrow_and_update().0.half_open {
                tokio::select! {
                    read = from.read(&mut buffer) => if !matches!(read, Ok(1..)) { return },
                    changed = sky.changed() => if changed.is_err() { return },
                }
            }
            return;
        }
        let bytes = &buffer[..length];
        match way {
            // The server has acted on the request, and the client never hears of it.
            Way::Down if cutting.load(Ordering::SeqCst) => {
                shared.done.fetch_add(1, Ordering::SeqCst);
                return;
            }
            Way::Up if shared.is_to_be_cut(bytes) => cutting.store(true, Ordering::SeqCst),
            Way::Up | Way::Down => {}
        }
        let transfer = now.bandwidth.map_or(0.0, |limit| length as f64 / limit.max(1) as f64);
        let wait = now.latency + Duration::from_secs_f64(transfer);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

fn reset(stream: &TcpStream) {
    // Closing with data unread or with this option sends RST; where it fails the socket is gone.
    let _ = stream.set_zero_linger();
}

/// One way of a shared stream.
struct Half<'s>(&'s TcpStream);

impl Half<'_> {
    async fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            self.0.readable().await?;
            match self.0.try_read(buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }

    async fn write_all(&mut self, mut bytes: &[u8]) -> std::io::Result<()> {
        while !bytes.is_empty() {
            self.0.writable().await?;
            match self.0.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
