//! Sending a tape over a WebSocket: announced, paced, and closed at its end.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tapeline_schemas::Micros;
use tokio::time::Instant;

use super::Speed;
use super::recording::{Frame, Payload};
use crate::venue::driver::{ANNOUNCEMENT, END_OF_RECORDING};

/// Frames written before the socket is flushed at full speed.
const FLUSH_FRAMES: usize = 64;
/// Time for the client to answer the close, so that the last frames are not cut off by a reset. What the socket holds
/// by then may be thousands of frames, for a client that waits for Kafka; one that is gone ends it at once.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(120);

/// The sending half of a tape's connection.
pub(super) struct Tape {
    sink: SplitSink<WebSocket, Message>,
    unflushed: usize,
}

impl Tape {
    /// Takes the connection apart.
    pub(super) fn split(socket: WebSocket) -> (Tape, SplitStream<WebSocket>) {
        let (sink, stream) = socket.split();
        (Tape { sink, unflushed: 0 }, stream)
    }

    /// Sends a frame behind the announcement of its time.
    pub(super) async fn frame(&mut self, frame: &Frame) -> Result<(), axum::Error> {
        let mut announcement = ANNOUNCEMENT.to_vec();
        announcement.extend_from_slice(frame.time.0.to_string().as_bytes());
        self.sink.feed(Message::Ping(announcement.into())).await?;
        let message = match &frame.payload {
            Payload::Text(text) => Message::Text(text.as_str().into()),
            Payload::Binary(bytes) => Message::Binary(bytes.clone()),
        };
        self.sink.feed(message).await?;
        self.unflushed += 1;
        if self.unflushed >= FLUSH_FRAMES { self.flush().await } else { Ok(()) }
    }

    /// Hands everything to the network.
    pub(super) async fn flush(&mut self) -> Result<(), axum::Error> {
        self.unflushed = 0;
        self.sink.flush().await
    }

    /// Ends the tape and waits until the client has taken it.
    pub(super) async fn end(mut self, stream: &mut SplitStream<WebSocket>) {
        let frame = CloseFrame { code: 1000, reason: END_OF_RECORDING.into() };
        if self.sink.send(Message::Close(Some(frame))).await.is_ok() {
            let drained = async { while let Some(Ok(_)) = stream.next().await {} };
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, drained).await;
        }
    }
}

/// Turns recorded times into moments of now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    speed: Speed,
    start: Option<(Instant, Micros)>,
}

impl Pace {
    pub(super) fn new(speed: Speed) -> Pace {
        Pace { speed, start: None }
    }

    /// A pace that began before.
    pub(super) fn begun(speed: Speed, start: Instant, first: Micros) -> Pace {
        Pace { speed, start: Some((start, first)) }
    }

    /// When what was recorded at `time` is due; the first thing asked about is due at once.
    pub(super) fn due(&mut self, time: Micros) -> Option<Instant> {
        let Speed::Times(times) = self.speed else { return None };
        let (start, first) = *self.start.get_or_insert_with(|| (Instant::now(), time));
        let micros = u64::try_from(time.since(first)).unwrap_or_default();
        // A pace may be a float: it moves no recorded time.
        Duration::from_micros(micros).div_f64_checked(times).map(|after| start + after)
    }
}

trait DivChecked {
    fn div_f64_checked(self, by: f64) -> Option<Duration>;
}

impl DivChecked for Duration {
    fn div_f64_checked(self, by: f64) -> Option<Duration> {
        Duration::try_from_secs_f64(self.as_secs_f64() / by).ok()
    }
}
