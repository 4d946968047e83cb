//! Reads recordings: `VENUE.0`, `VENUE.http.*` and `VENUE.ws.*`, a line a message.
//!
//! - `URL -> TIME: BODY` is a REST answer,
//! - `URL <-> TIME` an opened connection,
//! - `URL <- TIME: TEXT` what the client sent,
//! - `TIME: TEXT` what the venue sent, as a Python bytes literal (`b'…'`) where the frame was binary,
//! - `configuration: {…}` the channels and symbols of the recording.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::Value;
use tapeline_schemas::Micros;
use thiserror::Error;

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
        let io_error = |path: &Path| {
            let path = path.to_owned();
            move |source| RecordingError::Io { path, source }
        };
        let mut recording = Recording { venue: venue.to_ascii_uppercase(), ..Recording::default() };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(io_error(dir))? {
            let name = entry.map_err(io_error(dir))?.file_name();
            let Some(name) = name.to_str() else { continue };
            let rest = name.strip_prefix(&recording.venue).and_then(|r| r.strip_prefix('.'));
            let known =
                |rest: &&str| *rest == "0" || rest.starts_with("http.") || rest.starts_with("ws.");
            if let Some(rest) = rest.filter(known) {
                paths.push((numbers(rest), dir.join(name)));
            }
        }
        if paths.is_empty() {
            return Err(RecordingError::Absent { venue: recording.venue, dir: dir.to_owned() });
        }
        paths.sort();
        for (_, path) in paths {
            let text = std::fs::read_to_string(&path).map_err(io_error(&path))?;
            recording.take(&text).map_err(|(line, reason)| RecordingError::Line {
                path: path.clone(),
                line,
                reason,
            })?;
        }
        Ok(recording)
    }

    /// Takes the lines of one file; connections do not go on across files.
    pub fn take(&mut self, text: &str) -> Result<(), (usize, &'static str)> {
        let mut open = false;
        for (index, line) in text.lines().enumerate() {
            if !line.trim().is_empty() {
                self.line(line, &mut open).map_err(|reason| (index + 1, reason))?;
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &str, open: &mut bool) -> Result<(), &'static str> {
        if let Some(json) = line.strip_prefix("configuration: ") {
            self.configuration =
                serde_json::from_str(json).map_err(|_| "configuration is not JSON")?;
            return Ok(());
        }
        if line.starts_with(|c: char| c.is_ascii_digit()) {
            let (time, text) = timed(line)?;
            let frame = Frame { time, payload: payload(text)? };
            let connection = self.connections.last_mut().filter(|_| *open);
            connection.ok_or("a frame before any connection")?.frames.push(frame);
            return Ok(());
        }
        let mut words = line.splitn(3, ' ');
        let (Some(url), Some(arrow), Some(rest)) = (words.next(), words.next(), words.next())
        else {
            return Err("neither a frame nor an address with an arrow");
        };
        let path = path_and_query(url).ok_or("not an address")?;
        match arrow {
            "->" => {
                let (time, body) = timed(rest)?;
                self.answers.push(Answer { path, time, body: body.to_owned() });
            }
            "<->" => {
                *open = true;
                self.connections.push(Connection { path, ..Connection::default() });
            }
            "<-" => {
                let (_, text) = timed(rest)?;
                let connection = self.connections.last_mut().filter(|_| *open);
                connection.ok_or("sent before any connection")?.sent.push(text.to_owned());
            }
            _ => return Err("unknown arrow"),
        }
        Ok(())
    }
}

/// Orders `ws.9.0` before `ws.10.0`.
fn numbers(name: &str) -> Vec<u64> {
    name.split('.').filter_map(|part| part.parse().ok()).collect()
}

fn timed(text: &str) -> Result<(Micros, &str), &'static str> {
    let (time, rest) = text.split_once(": ").ok_or("no time before a colon")?;
    Ok((Micros::from_seconds_text(time).ok_or("time is not in seconds")?, rest))
}

fn path_and_query(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    Some(rest.find('/').map_or_else(|| "/".to_owned(), |at| rest[at..].to_owned()))
}

fn payload(text: &str) -> Result<Payload, &'static str> {
    for quote in ['\'', '"'] {
        let inner = text
            .strip_prefix('b')
            .and_then(|t| t.strip_prefix(quote))
            .and_then(|t| t.strip_suffix(quote));
        if let Some(inner) = inner {
            return unescape(inner).map(|bytes| Payload::Binary(bytes.into()));
        }
    }
    Ok(Payload::Text(text.to_owned()))
}

/// The bytes of a Python bytes literal's inside.
fn unescape(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next() {
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'x') => {
                let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
                match (digit(), digit()) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => return Err("\\x without two hexadecimal digits"),
                }
            }
            Some(same @ (b'\\' | b'\'' | b'"')) => same,
            _ => return Err("unknown escape in a bytes literal"),
        });
    }
    Ok(out)
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
