//! Recordings and simulated venues behind real sockets on loopback, so that a connector cannot tell
//! them from the venue.
//!
//! Both send, right before each data frame, a WebSocket ping with the frame's recorded receive time
//! (`t=` and microseconds), and REST answers carry it in the header `x-recorded-at`. A client with a
//! wall clock answers the ping and goes on as always. The end of the tape closes the connection
//! with code 1000 and the reason `end of recording`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub mod configuration;
mod confirm;
mod faults;
mod filter;
mod random;
pub mod recording;
mod reference;
mod run;
mod server;
mod shift;
pub mod simulated;
mod socket;
mod venue;
mod wire;

pub use faults::{Deed, Faults, Injected, Journal};
pub use recording::{Recording, RecordingError};
pub use server::serve;
pub use shift::Shift;

use self::wire::{Fuse, Wires};

/// How fast a tape runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// So many times as fast as it was recorded.
    Times(f64),
    /// As fast as the client takes it.
    Max,
}

impl std::str::FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Speed, String> {
        match text.parse::<f64>() {
            _ if text == "max" => Ok(Speed::Max),
            Ok(times) if times.is_finite() && times > 0.0 => Ok(Speed::Times(times)),
            _ => Err(format!("unknown speed `{text}`, expected `max` or a number above 0")),
        }
    }
}

/// Where on the tape a client's run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Join {
    /// Each client gets the whole tape.
    #[default]
    Beginning,
    /// There is one tape, which begins with the first client; who comes later, or again, joins it where it is.
    Now,
}

/// How recordings are served.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How fast.
    pub speed: Speed,
    /// From where.
    pub join: Join,
    /// What goes wrong on purpose.
    pub faults: Option<Faults>,
    /// The same seed draws the same faults for the same connection in order of connecting.
    pub seed: u64,
    /// How often the tape is played, one time behind the other with later times and higher ids.
    pub laps: u32,
}

impl From<Speed> for Options {
    fn from(speed: Speed) -> Options {
        Options { speed, join: Join::default(), faults: None, seed: 0, laps: 1 }
    }
}

/// Why a playback cannot start.
#[derive(Debug, Error)]
pub enum PlaybackError {
    /// A recording cannot be read.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// The venue's way to subscribe is not known here.
    #[error("no playback of {0}, expected one of {names}", names = crate::venue::venue_names())]
    UnknownVenue(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Handle {
    addr: SocketAddr,
    journal: Journal,
    clients: Arc<AtomicU64>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Handle {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What was done wrong on purpose so far.
    pub fn injected(&self) -> &Journal {
        &self.journal
    }

    /// How many connections have begun to be played to so far.
    pub fn clients(&self) -> u64 {
        self.clients.load(Ordering::Acquire)
    }

    /// Base address of a venue's REST requests.
    pub fn rest_url(&self, venue: &str) -> String {
        format!("http://{}/{}", self.addr, venue.to_ascii_lowercase())
    }

    /// Base address of a venue's WebSocket connections.
    pub fn ws_url(&self, venue: &str) -> String {
        format!("ws://{}/{}", self.addr, venue.to_ascii_lowercase())
    }

    /// Ends the server and every connection.
    pub async fn shutdown(mut self) {
        self.cancel.cancel();
        // Its end is all that is waited for; a panic in it has been printed.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Serves `router` on `addr` until the handle is dropped or `cancel` is set.
async fn listen(
    addr: SocketAddr,
    router: axum::Router,
    journal: Journal,
    clients: Arc<AtomicU64>,
    cancel: CancellationToken,
) -> Result<Handle, PlaybackError> {
    let failed = |source| PlaybackError::Listen { addr, source };
    let listener = tokio::net::TcpListener::bind(addr).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    let until = cancel.clone();
    let task = tokio::spawn(async move {
        // Not gracefully: a client's idle connection would be waited for.
        // Accepting connections only fails for good when the process is out of them.
        let service = router.into_make_service_with_connect_info::<Fuse>();
        let served = axum::serve(Wires(listener), service).into_future();
        let _ = until.run_until_cancelled(served).await;
    });
    Ok(Handle { addr, journal, clients, cancel, task })
}
