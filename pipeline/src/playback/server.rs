//! Serves recordings: REST answers as recorded, and each client its own run of the tape.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path as UrlPath, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream::SplitStream;
use futures_util::{FutureExt, StreamExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::filter::{Change, Protocol, Subscriptions, Topic};
use super::recording::{Answer, Frame, Recording};
use super::socket::{Pace, Tape};
use super::{Handle, PlaybackError, Speed, listen};
use crate::venue::driver::RECORDED_AT;

/// A venue's tape, ready to be served.
#[derive(Debug)]
struct Venue {
    protocol: Protocol,
    answers: HashMap<String, Answers>,
    connections: Vec<RecordedConnection>,
}

/// A recorded connection's frames with what each is about, and all that occurs in it.
#[derive(Debug, Default)]
struct RecordedConnection {
    channels: HashSet<String>,
    frames: Vec<(Topic, Frame)>,
}

/// Recorded answers to one request, given in order; the last one again and again.
#[derive(Debug, Default)]
struct Answers {
    list: Vec<Answer>,
    given: AtomicUsize,
}

#[derive(Debug, Clone)]
struct App {
    venues: Arc<HashMap<String, Venue>>,
    speed: Speed,
    cancel: CancellationToken,
}

/// Serves the recordings of `venues` in `dir` on `addr` (port 0 takes a free one), each under its own
/// path: `http://ADDR/kraken`, `ws://ADDR/kraken`.
pub async fn serve(
    dir: &Path,
    venues: &[&str],
    addr: SocketAddr,
    speed: Speed,
) -> Result<Handle, PlaybackError> {
    let mut tapes = HashMap::new();
    for name in venues {
        let recording = Recording::read(dir, name)?;
        let protocol = Protocol::of(&recording.venue)
            .ok_or_else(|| PlaybackError::UnknownVenue((*name).to_owned()))?;
        tapes.insert(name.to_ascii_lowercase(), Venue::new(protocol, recording));
    }
    let cancel = CancellationToken::new();
    let app = App { venues: Arc::new(tapes), speed, cancel: cancel.clone() };
    let router = Router::new()
        .route("/{venue}", get(root))
        .route("/{venue}/", get(root))
        .route("/{venue}/{*path}", get(below))
        .with_state(app);
    listen(addr, router, cancel).await
}

impl Venue {
    fn new(protocol: Protocol, recording: Recording) -> Venue {
        let mut answers: HashMap<String, Answers> = HashMap::new();
        for answer in recording.answers {
            answers.entry(request_key(&answer.path)).or_default().list.push(answer);
        }
        let mut connections = Vec::new();
        for recorded in recording.connections {
            let mut connection = RecordedConnection::default();
            for frame in recorded.frames {
                let topic = protocol.topic(frame.payload.as_bytes());
                if let Topic::Channels(channels) = &topic {
                    connection.channels.extend(channels.iter().cloned());
                }
                connection.frames.push((topic, frame));
            }
            connections.push(connection);
        }
        Venue { protocol, answers, connections }
    }

    fn answer(&self, path: &str) -> Response {
        let found = self.answers.get(&request_key(path)).and_then(|answers| {
            let turn = answers.given.fetch_add(1, Ordering::Relaxed);
            answers.list.get(turn).or(answers.list.last())
        });
        let json = [(header::CONTENT_TYPE.as_str(), "application/json".to_owned())];
        match found {
            None => (StatusCode::NOT_FOUND, json, self.protocol.not_found()).into_response(),
            Some(answer) => {
                let time = [(RECORDED_AT, answer.time.0.to_string())];
                (json, time, answer.body.clone()).into_response()
            }
        }
    }
}

/// A request whatever the order of its query.
fn request_key(path: &str) -> String {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut parts: Vec<&str> = query.split('&').filter(|part| !part.is_empty()).collect();
    parts.sort_unstable();
    format!("{path}?{}", parts.join("&"))
}

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

async fn root(
    State(app): State<App>,
    UrlPath(venue): UrlPath<String>,
    RawQuery(query): RawQuery,
    upgrade: Upgrade,
) -> Response {
    answer(app, &venue, "/", query, upgrade)
}

async fn below(
    State(app): State<App>,
    UrlPath((venue, path)): UrlPath<(String, String)>,
    RawQuery(query): RawQuery,
    upgrade: Upgrade,
) -> Response {
    answer(app, &venue, &format!("/{path}"), query, upgrade)
}

fn answer(app: App, name: &str, path: &str, query: Option<String>, upgrade: Upgrade) -> Response {
    let Some(venue) = app.venues.get(name) else {
        return (StatusCode::NOT_FOUND, format!("no recording of {name}")).into_response();
    };
    let query = query.unwrap_or_default();
    let Ok(upgrade) = upgrade else { return venue.answer(&format!("{path}?{query}")) };
    let name = name.to_owned();
    upgrade.on_upgrade(move |socket| async move {
        let Some(venue) = app.venues.get(&name) else { return };
        let subscribed = venue.protocol.in_address(&query);
        let run = play(venue, subscribed, app.speed, socket);
        // A client that went away needs nothing more.
        let _ = app.cancel.run_until_cancelled(run).await;
    })
}

/// One client's run of the tape.
struct Run<'a> {
    venue: &'a Venue,
    subscriptions: Subscriptions,
    /// Recorded connections that carry what the client wants, with the next frame of each. One that
    /// the client no longer wants keeps its place.
    cursors: Vec<(bool, usize)>,
    tape: Tape,
    stream: SplitStream<WebSocket>,
}

/// The client is gone.
struct Gone;

impl From<axum::Error> for Gone {
    fn from(_: axum::Error) -> Gone {
        Gone
    }
}

/// Plays the tape to one client: waits for its subscription, then sends what it asked for.
async fn play(
    venue: &Venue,
    subscribed: Vec<String>,
    speed: Speed,
    socket: WebSocket,
) -> Result<(), Gone> {
    let (tape, stream) = Tape::split(socket);
    let cursors = vec![(false, 0); venue.connections.len()];
    let mut run = Run { venue, subscriptions: Subscriptions::default(), cursors, tape, stream };
    run.change(&Change { add: subscribed, ..Change::default() });
    while run.subscriptions.is_empty() {
        let text = next_text(&mut run.stream).await.ok_or(Gone)?;
        run.heard(&text).await?;
    }
    let mut pace = Pace::new(speed);
    while let Some((topic, frame)) = run.next_frame() {
        let due = pace.due(frame.time);
        if due.is_some() {
            run.tape.flush().await?;
        }
        run.listen(due).await?;
        if run.subscriptions.wants(topic) {
            run.send(frame).await?;
        }
    }
    run.tape.flush().await?;
    run.tape.end(&mut run.stream).await;
    Ok(())
}

impl<'a> Run<'a> {
    fn change(&mut self, change: &Change) {
        self.subscriptions.apply(change);
        for ((active, _), recorded) in self.cursors.iter_mut().zip(&self.venue.connections) {
            *active = recorded.channels.iter().any(|c| self.subscriptions.names(c));
        }
    }

    async fn heard(&mut self, text: &str) -> Result<(), Gone> {
        let change = self.venue.protocol.message(text);
        self.change(&change);
        for reply in change.replies {
            self.tape.text(reply).await?;
        }
        Ok(())
    }

    /// Takes what the client says until `due`; without a due time, what it has said by now.
    async fn listen(&mut self, due: Option<Instant>) -> Result<(), Gone> {
        loop {
            let next = next_text(&mut self.stream);
            let text = match due {
                None => match next.now_or_never() {
                    Some(text) => text,
                    None => return Ok(()),
                },
                Some(due) => match tokio::time::timeout_at(due, next).await {
                    Ok(text) => text,
                    Err(_) => return Ok(()),
                },
            };
            self.heard(&text.ok_or(Gone)?).await?;
        }
    }

    /// Sends a frame while taking what the client sends: its pongs would fill the socket otherwise, and
    /// a client that cannot send does not read.
    async fn send(&mut self, frame: &Frame) -> Result<(), Gone> {
        let mut heard = Vec::new();
        {
            let send = self.tape.frame(frame);
            tokio::pin!(send);
            loop {
                tokio::select! {
                    biased;
                    sent = &mut send => break sent?,
                    text = next_text(&mut self.stream) => heard.push(text.ok_or(Gone)?),
                }
            }
        }
        for text in heard {
            self.heard(&text).await?;
        }
        Ok(())
    }

    /// The earliest frame not yet passed of the recorded connections that the client wants.
    fn next_frame(&mut self) -> Option<&'a (Topic, Frame)> {
        let venue = self.venue;
        let heads = self.cursors.iter_mut().zip(&venue.connections);
        let heads = heads.filter(|((active, _), _)| *active).filter_map(|((_, at), recorded)| {
            let head = recorded.frames.get(*at)?;
            Some((at, head))
        });
        let (at, head) = heads.min_by_key(|(_, (_, frame))| frame.time)?;
        *at += 1;
        Some(head)
    }
}

/// The client's next message; none when it is gone.
async fn next_text(stream: &mut SplitStream<WebSocket>) -> Option<String> {
    loop {
        match stream.next().await?.ok()? {
            Message::Text(text) => return Some(text.to_string()),
            Message::Close(_) => return None,
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) => {}
        }
    }
}
