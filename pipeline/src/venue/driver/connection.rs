//! One WebSocket connection, kept open: connect, subscribe, ping, read, reconnect.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt};
use tapeline_schemas::{GapChange, Micros};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use yawc::close::CloseCode;
use yawc::{Frame, OpCode, TcpWebSocket, WebSocketError};

use super::backoff;
use super::budget::Bucket;
use super::clock::{Clock, announced};
use super::network::{Network, NetworkError};
use crate::venue::{ConnectionPlan, Keepalive};

/// Time for the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Reason with which a playback closes a connection at the end of its tape.
pub const END_OF_RECORDING: &str = "end of recording";

/// What connections and REST answers tell the driver.
#[derive(Debug)]
pub(super) enum Event {
    /// The connection is open and subscribed.
    Opened { connection: usize },
    /// A frame with data.
    Frame { connection: usize, frame: Bytes, at: Micros },
    /// A ping or its answer: nothing was missed up to here.
    Alive { connection: usize, at: Micros },
    /// The connection is gone; another attempt follows.
    Lost { connection: usize, reason: String },
    /// The tape of a finite playback has ended; nothing follows.
    Ended { connection: usize },
    /// What was kept of another run.
    Recorded(super::again::Recorded),
    /// What other connectors of the same symbols have published: their names and words.
    Twins { others: Vec<(String, String)> },
    /// The holes that the log tells are open, read at the takeover of this number.
    Left { number: u64, holes: Vec<GapChange> },
    /// A snapshot, or why there is none.
    Snapshot {
        symbol: String,
        generation: u64,
        answer: Result<super::rest::Answer, super::rest::RestError>,
    },
}

#[derive(Debug, Error)]
enum ConnectionError {
    #[error("{0}")]
    Socket(#[from] WebSocketError),
    #[error("{0}")]
    Network(#[from] NetworkError),
    #[error("no answer within {} s", CONNECT_TIMEOUT.as_secs())]
    ConnectTimeout,
    #[error("silent for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("closed by the venue: {0}")]
    Closed(String),
    #[error("a frame without a recorded time; play back with a playback clock only")]
    NoTime,
    /// The driver is gone.
    #[error("the driver has ended")]
    DriverEnded,
}

/// A connection's task.
pub(super) struct Link {
    pub(super) number: usize,
    pub(super) network: Network,
    pub(super) base: String,
    pub(super) plan: ConnectionPlan,
    pub(super) keepalive: Keepalive,
    pub(super) finite: bool,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) outbox: mpsc::Receiver<String>,
    /// What is sent at once, whatever waits.
    pub(super) replies: mpsc::Receiver<&'static str>,
}

impl Link {
    /// Keeps the connection until the tape ends or the driver goes; whoever spawns it aborts it at shutdown.
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        loop {
            tokio::time::sleep(backoff::wait(failures)).await;
            if self.outbox.is_closed() {
                return;
            }
            let mut useful = false;
            let connection = self.number;
            let ended = self.session(&mut useful).await;
            failures = if useful { 1 } else { failures.saturating_add(1) };
            let event = match ended {
                Ok(()) => Event::Ended { connection },
                Err(ConnectionError::DriverEnded) => return,
                Err(error) => Event::Lost { connection, reason: error.to_string() },
            };
            let finished = matches!(event, Event::Ended { .. });
            if self.events.send(event).await.is_err() || finished {
                return;
            }
        }
    }

    /// From opening to the end of the tape (`Ok`) or a failure.
    async fn session(&mut self, useful: &mut bool) -> Result<(), ConnectionError> {
        let mut socket = self.open().await?;
        // What was meant for the last session says nothing to this one.
        while self.outbox.try_recv().is_ok() || self.replies.try_recv().is_ok() {}
        let mut pace = self.keepalive.pace.map(Bucket::new);
        for message in &self.plan.subscribe {
            socket.send(Frame::text(message.clone())).await?;
            turn(&mut pace);
        }
        self.tell(Event::Opened { connection: self.number }).await?;
        let mut recorded = None;
        let mut heard = Instant::now();
        let mut ping = tokio::time::interval(self.keepalive.ping_every);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A message that waits for its turn; reading goes on meanwhile.
        let mut unsent = None;
        let mut due = std::pin::pin!(tokio::time::sleep_until(heard));
        loop {
            let frame = tokio::select! {
                frame = socket.next_frame() => frame?,
                text = self.outbox.recv(), if unsent.is_none() => {
                    if text.is_none() {
                        // Nobody needs this connection any more.
                        let _ = socket.close().await;
                        return Err(ConnectionError::DriverEnded);
                    }
                    unsent = text;
                    due.as_mut().reset(turn(&mut pace));
                    continue;
                }
                Some(text) = self.replies.recv() => {
                    socket.send(Frame::text(text)).await?;
                    continue;
                }
                () = &mut due, if unsent.is_some() => {
                    if let Some(text) = unsent.take() {
                        socket.send(Frame::text(text)).await?;
                    }
                    continue;
                }
                _ = ping.tick() => {
                    if heard.elapsed() > self.keepalive.silence {
                        return Err(ConnectionError::Silent(self.keepalive.silence));
                    }
                    socket.send(Frame::ping(Bytes::new())).await?;
                    if let Some(text) = self.keepalive.text {
                        socket.send(Frame::text(text)).await?;
                    }
                    continue;
                }
            };
            if frame.opcode() == OpCode::Ping {
                // The answers of a stream that never pauses would pile up.
                let _ = socket.flush().now_or_never();
            }
            if !self.frame(frame, &mut recorded).await? {
                return Ok(());
            }
            // After the core has taken it: where that had to wait, the venue was not silent.
            heard = Instant::now();
            *useful = true;
        }
    }

    /// Takes one frame; false when the tape has ended.
    async fn frame(
        &self,
        frame: Frame,
        recorded: &mut Option<Micros>,
    ) -> Result<bool, ConnectionError> {
        let connection = self.number;
        match frame.opcode() {
            OpCode::Text | OpCode::Binary => {}
            OpCode::Ping => {
                // An announcement is no sign of life: its frame is about to follow.
                if let Some(time) = announced(frame.payload()) {
                    *recorded = Some(time);
                    return Ok(true);
                }
                return self.alive(*recorded).await;
            }
            OpCode::Pong => return self.alive(*recorded).await,
            OpCode::Close => return self.closed(&frame),
            // The library puts the parts of a message together.
            OpCode::Continuation => return Ok(true),
        }
        let at = self.clock.receive_time(*recorded).ok_or(ConnectionError::NoTime)?;
        self.tell(Event::Frame { connection, frame: frame.into_payload(), at }).await?;
        Ok(true)
    }

    async fn alive(&self, recorded: Option<Micros>) -> Result<bool, ConnectionError> {
        if let Some(at) = self.clock.receive_time(recorded) {
            self.tell(Event::Alive { connection: self.number, at }).await?;
        }
        Ok(true)
    }

    fn closed(&self, frame: &Frame) -> Result<bool, ConnectionError> {
        let reason = frame.close_reason()?.unwrap_or_default();
        match frame.close_code() {
            Some(CloseCode::Normal) if self.finite && reason == END_OF_RECORDING => Ok(false),
            Some(code) => Err(ConnectionError::Closed(
                format!("{reason} ({})", u16::from(code)).trim().to_owned(),
            )),
            None => Err(ConnectionError::Closed("without a reason".to_owned())),
        }
    }

    async fn open(&self) -> Result<TcpWebSocket, ConnectionError> {
        let url = format!("{}{}", self.base.trim_end_matches('/'), self.plan.path);
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, self.network.open(&url)).await;
        Ok(opened.map_err(|_| ConnectionError::ConnectTimeout)??)
    }

    async fn tell(&self, event: Event) -> Result<(), ConnectionError> {
        self.events.send(event).await.map_err(|_| ConnectionError::DriverEnded)
    }
}

/// When the next message may be sent: at once where the venue sets no pace.
fn turn(pace: &mut Option<Bucket>) -> Instant {
    let now = Instant::now();
    pace.as_mut().map_or(now, |pace| pace.reserve(1, now))
}
