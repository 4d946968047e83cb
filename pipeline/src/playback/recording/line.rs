//! The lines of recordings, read and written.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;
use tapeline_schemas::Micros;

use super::Payload;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line<'a> {
    /// What the recording was made with, as JSON.
    Configuration(Cow<'a, str>),
    /// The lines that follow speak of this connection.
    Select(usize),
    /// Connections are about to be opened, as JSON ([`crate::record::Unit`]).
    Unit(Cow<'a, str>),
    /// Connections, the first of which has this number, are not needed any more.
    Closed(usize),
    /// A REST answer.
    Answer {
        /// The address.
        url: Cow<'a, str>,
        /// When it was received.
        time: Micros,
        /// Its body.
        body: Cow<'a, str>,
    },
    /// A connection was opened.
    Opened {
        /// The address.
        url: Cow<'a, str>,
        /// When.
        time: Micros,
    },
    /// The client sent a text.
    Sent {
        /// The address.
        url: Cow<'a, str>,
        /// When.
        time: Micros,
        /// The text.
        text: Cow<'a, str>,
    },
    /// The venue sent a frame.
    Frame {
        /// When it was received.
        time: Micros,
        /// Its content.
        payload: Payload,
    },
    /// A ping or its answer was heard.
    Alive {
        /// When.
        time: Micros,
    },
    /// The connection was lost.
    Lost {
        /// Why.
        reason: Cow<'a, str>,
    },
    /// So many things were not kept here.
    Missing {
        /// How many.
        count: u64,
    },
}

impl<'a> Line<'a> {
    /// Reads a line; what is wrong with it otherwise.
    pub fn read(line: &'a str) -> Result<Line<'a>, &'static str> {
        if let Some(json) = line.strip_prefix("configuration: ") {
            return Ok(Line::Configuration(json.into()));
        }
        if line.starts_with(|c: char| c.is_ascii_digit()) {
            let (time, text) = timed(line)?;
            return Ok(Line::Frame { time, payload: payload(text)? });
        }
        if let Some(number) = line.strip_prefix('@') {
            return number.parse().map(Line::Select).map_err(|_| "no number of a connection");
        }
        if let Some(json) = line.strip_prefix("+ ") {
            return Ok(Line::Unit(json.into()));
        }
        if let Some(first) = line.strip_prefix("- ") {
            return first.parse().map(Line::Closed).map_err(|_| "no number of a connection");
        }
        if let Some(time) = line.strip_prefix("~ ") {
            let time = Micros::from_seconds_text(time).ok_or("time is not in seconds")?;
            return Ok(Line::Alive { time });
        }
        if let Some(reason) = line.strip_prefix("! ") {
            return Ok(Line::Lost { reason: reason.into() });
        }
        if let Some(count) = line.strip_prefix("? ") {
            let count = count.parse().map_err(|_| "no number of what is missing")?;
            return Ok(Line::Missing { count });
        }
        let mut words = line.splitn(3, ' ');
        let (Some(url), Some(arrow), Some(rest)) = (words.next(), words.next(), words.next())
        else {
            return Err("neither a frame nor an address with an arrow");
        };
        if !url.contains("://") {
            return Err("not an address");
        }
        let url = Cow::Borrowed(url);
        match arrow {
            "->" => timed(rest).map(|(time, body)| Line::Answer { url, time, body: body.into() }),
            "<->" => {
                let time = Micros::from_seconds_text(rest).ok_or("time is not in seconds")?;
                Ok(Line::Opened { url, time })
            }
            "<-" => timed(rest).map(|(time, text)| Line::Sent { url, time, text: text.into() }),
            _ => Err("unknown arrow"),
        }
    }

    /// Writes the line, with its end.
    pub fn write(&self, out: &mut String) {
        // Writing to a text cannot fail.
        let _ = match self {
            Line::Configuration(json) => writeln!(out, "configuration: {}", one_line(json)),
            Line::Select(number) => writeln!(out, "@{number}"),
            Line::Unit(json) => writeln!(out, "+ {}", one_line(json)),
            Line::Closed(first) => writeln!(out, "- {first}"),
            Line::Answer { url, time, body } => {
                writeln!(out, "{url} -> {}: {}", seconds(*time), one_line(body))
            }
            Line::Opened { url, time } => writeln!(out, "{url} <-> {}", seconds(*time)),
            Line::Sent { url, time, text } => {
                writeln!(out, "{url} <- {}: {}", seconds(*time), one_line(text))
            }
            Line::Frame { time, payload } => {
                let _ = write!(out, "{}: ", seconds(*time));
                write_payload(payload, out);
                writeln!(out)
            }
            Line::Alive { time } => writeln!(out, "~ {}", seconds(*time)),
            Line::Lost { reason } => writeln!(out, "! {}", one_line(reason)),
            Line::Missing { count } => writeln!(out, "? {count}"),
        };
    }
}

/// JSON says the same without its line ends.
fn one_line(text: &str) -> Cow<'_, str> {
    if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], " ").into() } else { text.into() }
}

/// Unix seconds with six decimals.
fn seconds(time: Micros) -> String {
    let micros = time.0.max(0);
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

fn timed(text: &str) -> Result<(Micros, &str), &'static str> {
    let (time, rest) = text.split_once(": ").ok_or("no time before a colon")?;
    Ok((Micros::from_seconds_text(time).ok_or("time is not in seconds")?, rest))
}

fn payload(text: &str) -> Result<Payload, &'static str> {
    match literal(text) {
        Some(inner) => unescape(inner).map(|bytes| Payload::Binary(bytes.into())),
        None => Ok(Payload::Text(text.to_owned())),
    }
}

/// The inside of a Python bytes literal.
fn literal(text: &str) -> Option<&str> {
    ['\'', '"']
        .into_iter()
        .find_map(|quote| text.strip_prefix('b')?.strip_prefix(quote)?.strip_suffix(quote))
}

fn write_payload(payload: &Payload, out: &mut String) {
    match payload {
        Payload::Text(text) if !text.contains(['\n', '\r']) && literal(text).is_none() => {
            out.push_str(text);
        }
        payload => {
            out.push_str("b'");
            for byte in payload.as_bytes() {
                match byte {
                    b'\'' | b'\\' => out.extend(['\\', char::from(*byte)]),
                    0x20..=0x7e => out.push(char::from(*byte)),
                    _ => {
                        // Writing to a text cannot fail.
                        let _ = write!(out, "\\x{byte:02x}");
                    }
                }
            }
            out.push('\'');
        }
    }
}

/// A frame as the line keeps it: as text wherever it is text.
pub fn kept(frame: &Bytes) -> Payload {
    std::str::from_utf8(frame)
        .map_or_else(|_| Payload::Binary(frame.clone()), |text| Payload::Text(text.to_owned()))
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_line_is_read_as_it_was_written() {
        let url = Cow::Borrowed("wss://x.com/a?b=c");
        let time = Micros(1_618_678_132_000_007);
        for line in [
            Line::Configuration("{\"a\":1}".into()),
            Line::Select(3),
            Line::Unit("{\"first\":3}".into()),
            Line::Closed(3),
            Line::Answer { url: url.clone(), time, body: "[1, 2]".into() },
            Line::Opened { url: url.clone(), time },
            Line::Sent { url, time, text: "{\"op\": \"a: b\"}".into() },
            Line::Frame { time, payload: Payload::Text("b'\\x00'?".into()) },
            Line::Alive { time },
            Line::Lost { reason: "reset by peer".into() },
            Line::Missing { count: 17 },
        ] {
            let mut text = String::new();
            line.write(&mut text);
            assert_eq!(Line::read(text.strip_suffix('\n').expect("a line")), Ok(line));
        }
    }

    proptest! {
        #[test]
        fn any_frame_keeps_its_bytes(frame in prop::collection::vec(any::<u8>(), 0..200)) {
            let payload = kept(&Bytes::from(frame.clone()));
            let mut text = String::new();
            Line::Frame { time: Micros(5), payload }.write(&mut text);
            prop_assert_eq!(text.lines().count(), 1);
            let read = Line::read(text.strip_suffix('\n').expect("a line"));
            let Ok(Line::Frame { payload, .. }) = read else { panic!("{read:?}") };
            prop_assert_eq!(payload.as_bytes(), frame.as_slice());
        }
    }
}
