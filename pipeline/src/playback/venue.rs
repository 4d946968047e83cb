//! A venue's tape, ready to be served: its answers, its frames with what each is about, and where it stands.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tapeline_schemas::Micros;
use tokio::time::Instant;

use super::faults::{Faults, Injector, Refusal};
use super::filter::{Protocol, Topic};
use super::recording::{Answer, Frame, Recording};
use super::reference::{Books, Change};
use super::shift::Shift;
use super::socket::Pace;
use super::{Join, Options, Speed};

/// Ids of one lap are so far above those of the lap before.
const LAP_IDS: i64 = 1_000_000_000;
const MINUTE_MICROS: i64 = 60_000_000;
/// Between the end of the tape and its next beginning.
const LAP_PAUSE_MICROS: i64 = 1_000_000;

/// A frame of the tape.
#[derive(Debug, Clone)]
pub(super) struct Taped {
    pub(super) topic: Topic,
    pub(super) frame: Frame,
    /// What it says of a book.
    pub(super) change: Option<Change>,
    /// It is the last one of a channel.
    pub(super) last: bool,
}

/// A recorded connection's frames, and all channels that occur in it.
#[derive(Debug, Default)]
pub(super) struct RecordedConnection {
    pub(super) channels: HashSet<String>,
    pub(super) frames: Vec<Taped>,
}

/// Recorded answers to one request, given in order; the last one again and again.
#[derive(Debug, Default)]
struct Answers {
    list: Vec<Answer>,
    given: AtomicUsize,
}

/// A venue's tape.
#[derive(Debug)]
pub(super) struct Venue {
    pub(super) name: String,
    pub(super) protocol: Protocol,
    pub(super) connections: Vec<RecordedConnection>,
    answers: HashMap<String, Answers>,
    /// The books that were asked for beside the stream: request and answer.
    opening: Vec<(String, String)>,
    /// When its first frame was received.
    pub(super) first: Micros,
    /// From the beginning of the tape to its next one: whole minutes, so that times in any unit and candles can follow.
    lap_micros: i64,
    /// When the one tape of all clients began.
    began: Mutex<Option<Instant>>,
    /// How far the newest client's run has come.
    newest: AtomicI64,
    /// Connections so far.
    pub(super) runs: AtomicU64,
    refusals: Option<Mutex<Injector>>,
}

impl Venue {
    pub(super) fn new(protocol: Protocol, recording: Recording, options: &Options) -> Venue {
        let name = recording.venue;
        let mut answers: HashMap<String, Answers> = HashMap::new();
        let mut opening = Vec::new();
        for answer in recording.answers {
            if Books::asked(protocol, &answer.path) {
                opening.push((answer.path.clone(), answer.body.clone()));
            }
            answers.entry(request_key(&answer.path)).or_default().list.push(answer);
        }
        let mut connections: Vec<RecordedConnection> = Vec::new();
        for recorded in recording.connections {
            let mut connection = RecordedConnection::default();
            for frame in recorded.frames {
                let topic = protocol.topic(frame.payload.as_bytes());
                let change = Change::read(protocol, &frame.payload);
                connection.frames.push(Taped { topic, frame, change, last: false });
            }
            connection.note_channels();
            connections.push(connection);
        }
        let times = || {
            let frames = connections.iter().flat_map(|connection| &connection.frames);
            frames.map(|taped| taped.frame.time)
        };
        let first = times().min().unwrap_or_default();
        let length = times().max().unwrap_or_default().since(first) + LAP_PAUSE_MICROS;
        let injector =
            |faults: Faults| Injector::new(faults, options.seed, &format!("{name} http"));
        Venue {
            refusals: options.faults.map(injector).map(Mutex::new),
            name,
            protocol,
            connections,
            answers,
            opening,
            first,
            lap_micros: length.div_euclid(MINUTE_MICROS).saturating_add(1) * MINUTE_MICROS,
            began: Mutex::new(None),
            newest: AtomicI64::new(first.0),
            runs: AtomicU64::new(0),
        }
    }

    fn shift(&self, lap: u32) -> Shift {
        let lap = i64::from(lap);
        Shift { micros: self.lap_micros.saturating_mul(lap), ids: LAP_IDS.saturating_mul(lap) }
    }

    /// A frame as it is in a lap.
    pub(super) fn in_lap<'a>(&self, taped: &'a Taped, lap: u32) -> Cow<'a, Taped> {
        if lap == 0 {
            return Cow::Borrowed(taped);
        }
        let (shift, at) = (self.shift(lap), taped.frame.time);
        let payload = shift.payload(self.protocol, &taped.frame.payload, at);
        Cow::Owned(Taped {
            topic: taped.topic.clone(),
            change: taped.change.as_ref().and_then(|_| Change::read(self.protocol, &payload)),
            frame: Frame { time: at.plus(shift.micros), payload },
            last: taped.last,
        })
    }

    /// When a frame of the tape is in a lap.
    pub(super) fn time_in_lap(&self, time: Micros, lap: u32) -> Micros {
        time.plus(self.shift(lap).micros)
    }

    /// The lap that `place` is in.
    pub(super) fn lap_of(&self, place: Micros, options: &Options) -> u32 {
        let lap = place.since(self.first).max(0) / self.lap_micros.max(1);
        u32::try_from(lap).unwrap_or(u32::MAX).min(options.laps.saturating_sub(1))
    }

    /// The books that were asked for beside the stream, as in a lap.
    pub(super) fn opening(&self, lap: u32) -> Books {
        let mut books = Books::default();
        for (path, body) in &self.opening {
            let body = self.shift(lap).text(self.protocol, body, self.first);
            if let Some(change) = Change::opening(self.protocol, path, &body) {
                books.apply(self.protocol, &change);
            }
        }
        books
    }

    /// Begins a client's run: its pace, and where on the tape it joins.
    pub(super) fn begin(&self, options: &Options) -> (Pace, Option<Micros>) {
        match options.join {
            Join::Beginning => {
                self.newest.store(self.first.0, Ordering::Release);
                for answers in self.answers.values() {
                    answers.given.store(0, Ordering::Relaxed);
                }
                (Pace::new(options.speed), None)
            }
            Join::Now => {
                let mut began = self.began.lock().unwrap_or_else(PoisonError::into_inner);
                let joins = began.is_some().then(|| self.place(options, *began));
                let start = *began.get_or_insert_with(Instant::now);
                let pace = Pace::begun(options.speed, start, self.first);
                (pace, joins)
            }
        }
    }

    /// A run has come so far.
    pub(super) fn passed(&self, time: Micros) {
        self.newest.store(time.0, Ordering::Release);
    }

    /// Where the tape is for who asks beside any connection.
    fn place(&self, options: &Options, began: Option<Instant>) -> Micros {
        match (options.join, options.speed, began) {
            (Join::Now, Speed::Times(times), Some(began)) => {
                // A pace may be a float: it moves no recorded time.
                let micros = began.elapsed().mul_f64(times).as_micros();
                self.first.plus(i64::try_from(micros).unwrap_or(i64::MAX))
            }
            _ => Micros(self.newest.load(Ordering::Acquire)),
        }
    }

    /// Every book as of `place`.
    fn books_at(&self, place: Micros, options: &Options) -> Books {
        let lap = self.lap_of(place, options);
        let mut books = self.opening(lap);
        let frames = self.connections.iter().flat_map(|connection| &connection.frames);
        let passed = frames.filter(|t| self.time_in_lap(t.frame.time, lap) <= place);
        for taped in passed.filter(|taped| taped.change.is_some()) {
            if let Some(change) = &self.in_lap(taped, lap).change {
                books.apply(self.protocol, change);
            }
        }
        books
    }

    /// Whether `path` asks for a book.
    pub(super) fn is_book(&self, path: &str) -> bool {
        Books::asked(self.protocol, path)
    }

    /// Whether the next answer is refused.
    pub(super) fn refuses(&self) -> Option<Refusal> {
        let injector = self.refusals.as_ref()?;
        injector.lock().unwrap_or_else(PoisonError::into_inner).answer()
    }

    /// The recorded answer to a request, or the book as it is now: the recorded one is given once to who plays the
    /// tape from its beginning, and never to who joins it.
    pub(super) fn answer(&self, path: &str, options: &Options) -> Option<(Micros, String)> {
        let book = || {
            let began = *self.began.lock().unwrap_or_else(PoisonError::into_inner);
            let place = self.place(options, began);
            let asked = Books::asked(self.protocol, path).then(|| self.books_at(place, options));
            let answer = asked?.answer(self.protocol, path)?;
            Some((place, answer))
        };
        let recorded = self.answers.get(&request_key(path));
        let Some(answers) = recorded else { return book() };
        let turn = answers.given.fetch_add(1, Ordering::Relaxed);
        let next = answers.list.get(turn).filter(|_| options.join == Join::Beginning);
        let given = |answer: &Answer| (answer.time, answer.body.clone());
        next.map(given)
            .or_else(book)
            .or_else(|| answers.list.get(turn).or(answers.list.last()).map(given))
    }
}

impl RecordedConnection {
    /// Notes every channel, and each one's last frame.
    fn note_channels(&mut self) {
        for taped in self.frames.iter_mut().rev() {
            let Topic::Channels(channels) = &taped.topic else { continue };
            for channel in channels {
                taped.last |= self.channels.insert(channel.clone());
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
