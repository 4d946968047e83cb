//! Reads recordings: `VENUE.0`, `VENUE.http.*` and `VENUE.ws.*`, a line a message.
//!
//! - `URL -> TIME: BODY` is a REST answer,
//! - `URL <-> TIME` an opened connection,
//! - `URL <- TIME: TEXT` what the client sent,
//! - `TIME: TEXT` what the venue sent, as a Python bytes literal (`b'…'`) where the frame was binary,
//! - `configuration: {…}` the channels and symbols of the recording.
//!
//! Files `VENUE.RUN.N.zst` are those that connectors keep themselves ([`crate::record`]): compressed, every connection
//! in one file, with more kinds of lines.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::Value;
use tapeline_schemas::Micros;
use thiserror::Error;

mod file;
mod line;

pub use file::{FileLine, Lines, files};
pub use line::{Line, kept};

/// Why a recording cannot be read.
#[derive(Debug, Error)]
pub enum RecordingError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is in none of the formats.
    #[error("{path}, line {line}: {reason}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is no file of the venue.
    #[error("no recording of {venue} in {dir}, expected files named {venue}.*")]
    Absent {
        /// The venue.
        venue: String,
        /// Where it was looked for.
        dir: PathBuf,
    },
}

/// What a frame carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// A text frame.
    Text(String),
    /// A binary frame.
    Binary(Bytes),
}

impl Payload {
    /// The bytes of either.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Payload::Text(text) => text.as_bytes(),
            Payload::Binary(bytes) => bytes,
        }
    }
}

/// A frame from the venue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// When it was received.
    pub time: Micros,
    /// Its content.
    pub payload: Payload,
}

/// One recorded WebSocket connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connection {
    /// Path and query of its address.
    pub path: String,
    /// A connector's number for it and when it was opened, where a connector kept it.
    pub opened: Option<(Option<usize>, Micros)>,
    /// What the client sent.
    pub sent: Vec<String>,
    /// What the venue sent, in order.
    pub frames: Vec<Frame>,
}

/// One recorded REST answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Path and query of its address.
    pub path: String,
    /// When it was received.
    pub time: Micros,
    /// Its body.
    pub body: String,
}

/// Everything recorded of a venue.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recording {
    /// The venue, upper case.
    pub venue: String,
    /// REST answers, in order.
    pub answers: Vec<Answer>,
    /// Connections, in order.
    pub connections: Vec<Connection>,
    /// The recording's own channels and symbols, where it tells them.
    pub configuration: Value,
}

impl Recording {
    /// Reads every file of `venue` in `dir`.
    pub fn read(dir: &Path, venue: &str) -> Result<Recording, RecordingError> {
        let mut recording = Recording { venue: venue.to_ascii_uppercase(), ..Recording::default() };
        for path in files(dir, &recording.venue)? {
            let mut taker = Taker::default();
            for line in Lines::open(&path)? {
                let line = line?;
                taker.take(&mut recording, &line.text).map_err(|reason| line.wrong(reason))?;
            }
        }
        Ok(recording)
    }

    /// Takes the lines of one file; connections do not go on across files but where a later file repeats how they were
    /// opened.
    pub fn take(&mut self, text: &str) -> Result<(), (usize, &'static str)> {
        let mut taker = Taker::default();
        for (index, line) in text.lines().enumerate() {
            taker.take(self, line).map_err(|reason| (index + 1, reason))?;
        }
        Ok(())
    }
}

/// Puts the lines of one file where they belong.
#[derive(Debug, Default)]
struct Taker {
    /// The connection that lines speak of, by the recorder's number, and its place in the recording.
    selected: Option<usize>,
    places: HashMap<Option<usize>, usize>,
}

impl Taker {
    fn take(&mut self, into: &mut Recording, line: &str) -> Result<(), &'static str> {
        if line.trim().is_empty() {
            return Ok(());
        }
        let place = self.places.get(&self.selected).copied();
        let connection = |into: &mut Recording| place.filter(|at| *at < into.connections.len());
        match Line::read(line)? {
            Line::Configuration(json) => {
                into.configuration =
                    serde_json::from_str(&json).map_err(|_| "configuration is not JSON")?;
            }
            Line::Select(number) => self.selected = Some(number),
            Line::Answer { url, time, body } => {
                let path = path_and_query(&url).ok_or("not an address")?;
                into.answers.push(Answer { path, time, body: body.into_owned() });
            }
            Line::Opened { url, time } => {
                let path = path_and_query(&url).ok_or("not an address")?;
                let opened = Some((self.selected, time)).filter(|(number, _)| number.is_some());
                let known =
                    into.connections.iter().position(|c| opened.is_some() && c.opened == opened);
                let at = known.unwrap_or_else(|| {
                    into.connections.push(Connection { path, opened, ..Connection::default() });
                    into.connections.len() - 1
                });
                self.places.insert(self.selected, at);
            }
            Line::Sent { text, .. } => {
                let at = connection(into).ok_or("sent before any connection")?;
                into.connections[at].sent.push(text.into_owned());
            }
            Line::Frame { time, payload } => {
                let at = connection(into).ok_or("a frame before any connection")?;
                into.connections[at].frames.push(Frame { time, payload });
            }
            Line::Unit(_)
            | Line::Closed(_)
            | Line::Alive { .. }
            | Line::Lost { .. }
            | Line::Missing { .. } => {}
        }
        Ok(())
    }
}

/// The path and query of an address.
pub(crate) fn path_and_query(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    Some(rest.find('/').map_or_else(|| "/".to_owned(), |at| rest[at..].to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line_is_read() {
        let mut recording = Recording::default();
        let text = "https://api.x.com/v1/depth?symbol=A&limit=5 -> 1.5: {\"a\": 1}\n\
            configuration: {\"trades\":[\"A-B\"]}\n\n\
            wss://ws.x.com <-> 2.0\n\
            wss://ws.x.com <- 2.1: {\"event\":\"subscribe\"}\n\
            2.25: {\"t\": \"a: b\"}\n\
            3: b'\\x01\\'\\\\n\\n'\n";
        recording.take(text).expect("well formed");
        assert_eq!(recording.answers[0].path, "/v1/depth?symbol=A&limit=5");
        assert_eq!(recording.answers[0].time, Micros(1_500_000));
        assert_eq!(recording.answers[0].body, "{\"a\": 1}");
        assert_eq!(recording.configuration["trades"][0], "A-B");
        let connection = &recording.connections[0];
        assert_eq!(connection.path, "/");
        assert_eq!(connection.sent, ["{\"event\":\"subscribe\"}"]);
        let text =
            Frame { time: Micros(2_250_000), payload: Payload::Text("{\"t\": \"a: b\"}".into()) };
        let binary = Payload::Binary(Bytes::from_static(b"\x01'\\n\n"));
        assert_eq!(connection.frames, [text, Frame { time: Micros(3_000_000), payload: binary }]);
    }

    #[test]
    fn a_line_in_no_format_is_named() {
        for (text, line) in [
            ("\n1.0: too early", 2),
            ("nonsense", 1),
            ("wss://x <-> 1\nx.5: frame", 2),
            ("wss://x <-> 1\n2.0: b'\\q'", 2),
            ("x -> y: z", 1),
        ] {
            assert_eq!(Recording::default().take(text).expect_err(text).0, line, "{text}");
        }
    }
}
