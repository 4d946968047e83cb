//! Recordings and simulated venues behind real sockets on loopback, so that a connector cannot tell
//! them from the venue.
//!
//! Both send, right before each data frame, a WebSocket ping with the frame's recorded receive time
//! (`t=` and microseconds), and REST answers carry it in the header `x-recorded-at`. A client with a
//! wall clock answers the ping and goes on as always. The end of the tape closes the connection
//! with code 1000 and the reason `end of recording`.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

mod configuration;
mod filter;
pub mod recording;
mod server;
pub mod simulated;
mod socket;

pub use recording::{Recording, RecordingError};
pub use server::serve;

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
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Handle {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
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
    cancel: CancellationToken,
) -> Result<Handle, PlaybackError> {
    let failed = |source| PlaybackError::Listen { addr, source };
    let listener = tokio::net::TcpListener::bind(addr).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    let until = cancel.clone();
    let task = tokio::spawn(async move {
        // Not gracefully: a client's idle connection would be waited for.
        // Accepting connections only fails for good when the process is out of them.
        let _ = until.run_until_cancelled(axum::serve(listener, router).into_future()).await;
    });
    Ok(Handle { addr, cancel, task })
}
