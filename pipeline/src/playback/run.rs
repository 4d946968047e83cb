//! One client's run of the tape.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use futures_util::stream::SplitStream;
use futures_util::{FutureExt, StreamExt};
use tapeline_schemas::Micros;
use tokio::time::Instant;

use super::confirm::confirmations;
use super::faults::{Deed, Faults, Injected, Injector, Journal, spoil};
use super::filter::{Change, Protocol, Subscriptions, Topic};
use super::recording::{Frame, Payload};
use super::reference::Books;
use super::socket::{Pace, Tape};
use super::venue::{Taped, Venue};
use super::wire::Fuse;
use super::{Join, Options};

/// How long the end of the tape waits for a client to ask again for a book that a fault broke.
const PATIENCE: Duration = Duration::from_secs(10);
/// Levels that Kraken's checksum covers: what is wrong below them, nobody can notice.
const KRAKEN_CHECKSUM: usize = 10;

/// What a run does to its connection, and where it is written down.
pub(super) struct Wiring {
    pub(super) fuse: Fuse,
    pub(super) journal: Journal,
    pub(super) clients: Arc<AtomicU64>,
}

/// One client's run of the tape.
pub(super) struct Run<'a> {
    venue: &'a Venue,
    options: &'a Options,
    subscriptions: Subscriptions,
    /// Recorded connections that carry what the client wants, with the next frame of each. One that
    /// the client no longer wants keeps its place.
    cursors: Vec<(bool, usize)>,
    /// Every book where the tape is now.
    books: Books,
    /// How often the tape has been played before.
    lap: u32,
    /// The newest frame passed; none before the first.
    place: Option<Micros>,
    tape: Tape,
    stream: SplitStream<WebSocket>,
    /// Snapshots that the client is to get, and when.
    snapshots: Vec<(Instant, String)>,
    wiring: Wiring,
    injector: Option<Injector>,
    /// A frame that comes after the next one.
    held: Option<Frame>,
    /// Books that a fault broke and the client can tell, and what it took back and may be about to make again.
    broken: HashSet<String>,
}

/// The client is gone.
pub(super) struct Gone;

impl From<axum::Error> for Gone {
    fn from(_: axum::Error) -> Gone {
        Gone
    }
}

impl<'a> Run<'a> {
    /// Plays the tape to one client: waits for its subscription, then sends what it asked for.
    pub(super) async fn play(
        venue: &'a Venue,
        options: &'a Options,
        wiring: Wiring,
        query: &str,
        socket: WebSocket,
    ) -> Result<(), Gone> {
        let (tape, stream) = Tape::split(socket);
        let number = venue.runs.fetch_add(1, Ordering::Relaxed);
        let injector = |faults: Faults| {
            Injector::new(faults, options.seed, &format!("{} {number}", venue.name))
        };
        let mut run = Run {
            venue,
            options,
            lap: 0,
            subscriptions: Subscriptions::default(),
            cursors: vec![(false, 0); venue.connections.len()],
            books: Books::default(),
            place: None,
            tape,
            stream,
            snapshots: Vec::new(),
            wiring,
            injector: options.faults.map(injector),
            held: None,
            broken: HashSet::new(),
        };
        let mut waiting = Vec::new();
        let add = venue.protocol.in_address(query);
        run.subscriptions.apply(&Change { add, ..Change::default() });
        while run.subscriptions.is_empty() {
            let text = next_text(&mut run.stream).await.ok_or(Gone)?;
            let change = venue.protocol.message(&text);
            run.subscriptions.apply(&change);
            for reply in &change.replies {
                run.say(reply.clone()).await?;
            }
            waiting.push((text, change));
        }
        let (pace, joins) = venue.begin(options);
        run.place = joins;
        run.lap = joins.map_or(0, |place| venue.lap_of(place, options));
        run.books = venue.opening(run.lap);
        run.activate();
        run.wiring.clients.fetch_add(1, Ordering::AcqRel);
        for (text, change) in waiting {
            run.subscribed(&text, &change).await?;
        }
        run.go(pace).await
    }

    async fn go(mut self, mut pace: Pace) -> Result<(), Gone> {
        loop {
            let Some(taped) = self.next_frame() else {
                if !self.subscriptions.is_empty() {
                    if self.next_lap() { continue } else { break }
                }
                // Between taking a subscription back and making it again.
                let text = next_text(&mut self.stream).await.ok_or(Gone)?;
                self.heard(&text).await?;
                continue;
            };
            let due = pace.due(self.venue.time_in_lap(taped.frame.time, self.lap));
            if due.is_some() {
                self.tape.flush().await?;
            }
            self.listen(due).await?;
            let taped = self.venue.in_lap(taped, self.lap);
            self.place = Some(taped.frame.time);
            if let Some(change) = &taped.change {
                self.books.apply(self.venue.protocol, change);
            }
            if self.subscriptions.wants(&taped.topic) {
                self.pass(&taped).await?;
            }
            self.venue.passed(taped.frame.time);
        }
        if let Some(held) = self.held.take() {
            self.send(&held).await?;
        }
        self.settle().await?;
        self.tape.flush().await?;
        self.tape.end(&mut self.stream).await;
        Ok(())
    }

    /// Goes back to the beginning of the tape, if it is to be played again.
    fn next_lap(&mut self) -> bool {
        if self.lap + 1 >= self.options.laps || !self.cursors.iter().any(|(active, _)| *active) {
            return false;
        }
        self.lap += 1;
        self.cursors.iter_mut().for_each(|(_, at)| *at = 0);
        true
    }

    /// Marks the recorded connections that carry what the client wants. Who joins the one tape of all passes what
    /// others have had.
    fn activate(&mut self) {
        let (venue, lap) = (self.venue, self.lap);
        let place = self.place.filter(|_| self.options.join == Join::Now);
        for ((active, at), recorded) in self.cursors.iter_mut().zip(&venue.connections) {
            *active = recorded.channels.iter().any(|c| self.subscriptions.names(c));
            let Some(place) = place.filter(|_| *active) else { continue };
            let passed = |taped: &&Taped| venue.time_in_lap(taped.frame.time, lap) <= place;
            while let Some(taped) = recorded.frames.get(*at).filter(passed) {
                if taped.change.is_some()
                    && let Some(change) = &venue.in_lap(taped, lap).change
                {
                    self.books.apply(venue.protocol, change);
                }
                *at += 1;
            }
        }
    }

    async fn heard(&mut self, text: &str) -> Result<(), Gone> {
        let change = self.venue.protocol.message(text);
        self.subscriptions.apply(&change);
        self.activate();
        for reply in &change.replies {
            self.say(reply.clone()).await?;
        }
        self.subscribed(text, &change).await
    }

    /// In the middle of the tape a subscription is confirmed, and a book begins with the snapshot as of now.
    async fn subscribed(&mut self, text: &str, change: &Change) -> Result<(), Gone> {
        self.snapshots.retain(|(_, channel)| !change.remove.contains(channel));
        if self.place.is_none() {
            return Ok(());
        }
        self.broken.extend(change.remove.iter().cloned());
        for reply in confirmations(self.venue.protocol, text, &change.add) {
            self.say(reply).await?;
        }
        let slow = self.injector.as_ref().map(Injector::slow_snapshot).unwrap_or_default();
        let due = Instant::now() + slow;
        self.snapshots.extend(change.add.iter().map(|channel| (due, channel.clone())));
        if slow.is_zero() { self.send_snapshots().await } else { Ok(()) }
    }

    /// Sends what is no part of the tape, with the time at which the tape is: a client that goes by the recorded
    /// times has none of its own for it.
    async fn say(&mut self, text: String) -> Result<(), Gone> {
        let time = self.place.unwrap_or(self.venue.first);
        self.tape.frame(&Frame { time, payload: Payload::Text(text) }).await?;
        Ok(self.tape.flush().await?)
    }

    /// Sends the snapshots that are due, as of now.
    async fn send_snapshots(&mut self) -> Result<(), Gone> {
        let now = Instant::now();
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.snapshots).into_iter().partition(|(due, _)| *due <= now);
        self.snapshots = later;
        for (_, channel) in due {
            self.broken.remove(&channel);
            let payload = self.books.snapshot(self.venue.protocol, &channel);
            if let Some((payload, time)) = payload.zip(self.place) {
                self.tape.frame(&Frame { time, payload }).await?;
                self.tape.flush().await?;
            }
        }
        Ok(())
    }

    /// Takes what the client says until `due`; without a due time, what it has said by now.
    async fn listen(&mut self, due: Option<Instant>) -> Result<(), Gone> {
        loop {
            self.send_snapshots().await?;
            let snapshot = self.snapshots.iter().map(|(at, _)| *at).min();
            let next = next_text(&mut self.stream);
            let text = match due {
                None => match next.now_or_never() {
                    Some(text) => text,
                    None => return Ok(()),
                },
                Some(due) => {
                    let until = snapshot.map_or(due, |at| at.min(due));
                    match tokio::time::timeout_at(until, next).await {
                        Ok(text) => text,
                        Err(_) if until < due => continue,
                        Err(_) => return Ok(()),
                    }
                }
            };
            self.heard(&text.ok_or(Gone)?).await?;
        }
    }

    /// Sends a frame, or what chance makes of it.
    async fn pass(&mut self, taped: &Taped) -> Result<(), Gone> {
        let deed = self.injector.as_mut().and_then(|injector| injector.frame(taped.last));
        let spoilt = deed.filter(|deed| *deed == Deed::Checksum).and(spoil(&taped.frame.payload));
        let deed = deed.filter(|deed| *deed != Deed::Checksum || spoilt.is_some());
        if let Some(deed) = deed {
            self.note(deed, taped);
        }
        match deed {
            Some(Deed::Drop) => return Ok(()),
            Some(Deed::Reorder) if self.held.is_none() => {
                self.held = Some(taped.frame.clone());
                return Ok(());
            }
            Some(Deed::Duplicate) => self.send(&taped.frame).await?,
            Some(Deed::Cut) => {
                let length = taped.frame.payload.as_bytes().len();
                self.tape.flush().await?;
                if let Some(injector) = &mut self.injector {
                    self.wiring.fuse.light(injector.part_of(length));
                }
                self.send(&taped.frame).await?;
                self.tape.flush().await?;
                return Err(Gone);
            }
            Some(Deed::Stall) => {
                let stall = self.injector.as_ref().map(Injector::stall).unwrap_or_default();
                tokio::time::sleep(stall).await;
            }
            Some(Deed::Reorder | Deed::Checksum) | None => {}
        }
        match spoilt {
            Some(payload) => self.send(&Frame { time: taped.frame.time, payload }).await?,
            None => self.send(&taped.frame).await?,
        }
        match self.held.take() {
            // What comes late was still received when it came.
            Some(held) => self.send(&Frame { time: taped.frame.time, ..held }).await,
            None => Ok(()),
        }
    }

    /// Writes down what is done to a frame, and which book is wrong by it.
    fn note(&mut self, deed: Deed, taped: &Taped) {
        let Topic::Channels(channels) = &taped.topic else { return };
        let (protocol, books) = (self.venue.protocol, &self.books);
        let tells = |change: &&super::reference::Change| match protocol {
            Protocol::Deribit | Protocol::Okx => true,
            Protocol::Kraken => change.is_whole() || books.within(change, KRAKEN_CHECKSUM),
            _ => false,
        };
        if matches!(deed, Deed::Drop | Deed::Reorder | Deed::Checksum)
            && let Some(change) = taped.change.as_ref().filter(tells)
        {
            self.broken.insert(change.book().to_owned());
        }
        self.wiring.journal.note(Injected {
            venue: self.venue.name.clone(),
            deed,
            channels: channels.clone(),
            time: taped.frame.time,
        });
    }

    /// At the end of the tape nothing follows that would make up for what is broken, so the client gets its time.
    async fn settle(&mut self) -> Result<(), Gone> {
        let mut until = Instant::now() + PATIENCE;
        self.tape.flush().await?;
        while !(self.broken.is_empty() && self.snapshots.is_empty()) {
            self.send_snapshots().await?;
            let due = self.snapshots.iter().map(|(at, _)| *at).min().unwrap_or(until);
            match tokio::time::timeout_at(due.min(until), next_text(&mut self.stream)).await {
                Ok(text) => {
                    self.heard(&text.ok_or(Gone)?).await?;
                    until = Instant::now() + PATIENCE;
                }
                Err(_) if Instant::now() >= until => break,
                Err(_) => {}
            }
        }
        Ok(())
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
    fn next_frame(&mut self) -> Option<&'a Taped> {
        let venue = self.venue;
        let heads = self.cursors.iter_mut().zip(&venue.connections);
        let heads = heads.filter(|((active, _), _)| *active).filter_map(|((_, at), recorded)| {
            let head = recorded.frames.get(*at)?;
            Some((at, head))
        });
        let (at, head) = heads.min_by_key(|(_, head)| head.frame.time)?;
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
