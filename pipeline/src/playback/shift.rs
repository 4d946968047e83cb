//! The same traffic at another time with other ids: what an endless tape is made of, and what shows that nothing
//! depends on a recording's dates and numbers.

use tapeline_schemas::Micros;

use super::filter::Protocol;
use super::recording::{Payload, Recording};
use super::reference::Books;
use crate::venue::civil::{korean, utc};

/// Korea is nine hours ahead of UTC.
const KOREA_MICROS: i64 = 9 * 3_600 * 1_000_000;
/// Kraken's times have no key: what looks like seconds with decimals and is within a day of the frame is one.
const DAY_MICROS: i64 = 86_400_000_000;

/// What a key's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// Milliseconds, as a number or a text of digits.
    Millis,
    /// RFC 3339.
    Utc,
    /// A day and a time of Korea.
    Korean,
    /// A whole number that identifies or counts.
    Id,
    /// The same, if it is written without quotes.
    BareId,
}

/// How far a frame is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shift {
    /// By so much, a whole number of seconds.
    pub micros: i64,
    /// What is added to every id and sequence number.
    pub ids: i64,
}

fn keys(protocol: Protocol) -> &'static [(&'static str, What)] {
    use What::{BareId, Id, Korean, Millis, Utc};
    match protocol {
        Protocol::Binance => &[
            ("E", Millis),
            ("T", Millis),
            ("t", Millis),
            ("a", BareId),
            ("f", BareId),
            ("l", BareId),
            ("L", BareId),
            ("u", BareId),
            ("U", BareId),
            ("lastUpdateId", BareId),
        ],
        Protocol::Bithumb => &[("contDtm", Korean)],
        Protocol::Coinbase => &[("time", Utc), ("trade_id", Id), ("sequence", Id)],
        Protocol::Deribit => &[
            ("timestamp", Millis),
            ("trade_seq", Id),
            ("trade_id", Id),
            ("change_id", Id),
            ("prev_change_id", Id),
        ],
        Protocol::Kraken => &[],
        Protocol::Okx => &[("ts", Millis), ("tradeId", Id), ("seqId", Id), ("prevSeqId", Id)],
        Protocol::Upbit => &[("tms", Millis), ("ttms", Millis), ("sid", Id)],
    }
}

impl Shift {
    /// A frame, or an answer, moved; `at` is when it was received.
    pub(super) fn text(self, protocol: Protocol, text: &str, at: Micros) -> String {
        if protocol == Protocol::Kraken {
            return self.seconds(text, at);
        }
        let mut out = String::with_capacity(text.len() + 16);
        let mut rest = text;
        while let Some((before, value, what)) = next_value(protocol, rest) {
            out.push_str(&rest[..before]);
            rest = &rest[before..];
            match self.value(what, value) {
                Some(moved) => {
                    out.push_str(&moved);
                    rest = &rest[value.len()..];
                }
                None => {
                    let step = rest.chars().next().map_or(0, char::len_utf8);
                    out.push_str(&rest[..step]);
                    rest = &rest[step..];
                }
            }
        }
        out.push_str(rest);
        out
    }

    /// The same of a payload.
    pub(super) fn payload(self, protocol: Protocol, payload: &Payload, at: Micros) -> Payload {
        match payload {
            Payload::Text(text) => Payload::Text(self.text(protocol, text, at)),
            Payload::Binary(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Payload::Binary(self.text(protocol, text, at).into_bytes().into()),
                Err(_) => payload.clone(),
            },
        }
    }

    fn value(self, what: What, value: &str) -> Option<String> {
        let quoted = value.starts_with('"');
        let inner = value.trim_matches('"');
        let moved = match what {
            What::BareId if quoted => return None,
            What::Id | What::BareId => whole(inner, self.ids)?,
            What::Millis => whole(inner, self.micros / 1_000)?,
            What::Utc => utc(inner).ok()?.plus(self.micros).to_string(),
            What::Korean => {
                let (day, time) = inner.split_once(' ')?;
                let there = korean(day, time).ok()?.plus(self.micros + KOREA_MICROS).to_string();
                there.trim_end_matches('Z').replace('T', " ")
            }
        };
        Some(if quoted { format!("\"{moved}\"") } else { moved })
    }

    /// Moves every text of seconds with decimals.
    fn seconds(self, text: &str, at: Micros) -> String {
        let moved = text.split('"').map(|part| {
            let is_time =
                part.contains('.') && part.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            let time = Micros::from_seconds_text(part).filter(|_| is_time);
            match time.filter(|time| time.since(at).abs() < DAY_MICROS) {
                Some(_) => {
                    let (whole_seconds, decimals) = part.split_once('.').unwrap_or((part, ""));
                    let whole_seconds = whole(whole_seconds, self.micros / 1_000_000);
                    format!("{}.{decimals}", whole_seconds.unwrap_or_default())
                }
                None => part.to_owned(),
            }
        });
        moved.collect::<Vec<_>>().join("\"")
    }
}

impl Recording {
    /// The same traffic moved: connections and books that were asked for; the tables stay as they are.
    pub fn moved(mut self, shift: Shift) -> Recording {
        let Some(protocol) = Protocol::of(&self.venue) else { return self };
        for frame in self.connections.iter_mut().flat_map(|connection| &mut connection.frames) {
            frame.payload = shift.payload(protocol, &frame.payload, frame.time);
            frame.time = frame.time.plus(shift.micros);
        }
        for answer in self.answers.iter_mut().filter(|a| Books::asked(protocol, &a.path)) {
            answer.body = shift.text(protocol, &answer.body, answer.time);
            answer.time = answer.time.plus(shift.micros);
        }
        self
    }

    /// The same traffic as if it were of other symbols: each of the venue's names for another one. The tables stay.
    pub fn renamed(mut self, names: &[(String, String)]) -> Recording {
        let rename = |text: &str| -> String {
            // Over a place that no text has, so that two names may change places.
            let marked =
                names.iter().enumerate().fold(text.to_owned(), |text, (index, (from, _))| {
                    let lower = from.to_ascii_lowercase();
                    let text = text.replace(from.as_str(), &format!("\u{1}{index}\u{2}"));
                    text.replace(&lower, &format!("\u{3}{index}\u{2}"))
                });
            names.iter().enumerate().fold(marked, |text, (index, (_, to))| {
                let text = text.replace(&format!("\u{1}{index}\u{2}"), to);
                text.replace(&format!("\u{3}{index}\u{2}"), &to.to_ascii_lowercase())
            })
        };
        let Some(protocol) = Protocol::of(&self.venue) else { return self };
        for connection in &mut self.connections {
            connection.path = rename(&connection.path);
            for frame in &mut connection.frames {
                frame.payload = match &frame.payload {
                    Payload::Text(text) => Payload::Text(rename(text)),
                    Payload::Binary(bytes) => {
                        Payload::Binary(rename(&String::from_utf8_lossy(bytes)).into())
                    }
                };
            }
        }
        for answer in self.answers.iter_mut().filter(|a| Books::asked(protocol, &a.path)) {
            answer.path = rename(&answer.path);
        }
        self
    }
}

/// A whole number plus another; what is none, or not positive, stays as it is.
fn whole(text: &str, plus: i64) -> Option<String> {
    let number: i64 = text.parse().ok().filter(|number| *number > 0)?;
    number.checked_add(plus).map(|moved| moved.to_string())
}

/// Where the next value of a known key begins, the value with its quotes, and what it is.
fn next_value(protocol: Protocol, text: &str) -> Option<(usize, &str, What)> {
    let mut from = 0;
    while let Some(at) = text[from..].find("\":") {
        let end = from + at;
        let begin = text[..end].rfind('"').map_or(0, |quote| quote + 1);
        let mut value = end + 2;
        while text[value..].starts_with(' ') {
            value += 1;
        }
        let known = keys(protocol).iter().find(|(key, _)| *key == &text[begin..end]);
        if let Some((_, what)) = known {
            let rest = &text[value..];
            let length = match rest.strip_prefix('"') {
                Some(inner) => inner.find('"').map_or(rest.len(), |quote| quote + 2),
                None => rest.find([',', '}', ']']).unwrap_or(rest.len()),
            };
            if length > 0 && !rest.starts_with(['[', '{']) {
                return Some((value, &rest[..length], *what));
            }
        }
        from = end + 2;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_ids_move_and_nothing_else() {
        let shift = Shift { micros: 86_400_000_000, ids: 1_000 };
        let at = Micros(1_618_678_142_000_000);
        for (protocol, text, moved) in [
            (
                Protocol::Binance,
                r#"{"stream":"x@aggTrade","data":{"E":1633998523963,"a":12,"p":"57000.10","T":1633998523960,"m":false}}"#,
                r#"{"stream":"x@aggTrade","data":{"E":1634084923963,"a":1012,"p":"57000.10","T":1634084923960,"m":false}}"#,
            ),
            (
                Protocol::Binance,
                r#"{"u":400,"b":"57000.00","a":"57000.10"}"#,
                r#"{"u":1400,"b":"57000.00","a":"57000.10"}"#,
            ),
            (
                Protocol::Binance,
                r#"{"U":1,"u":2,"b":[["5.0","1"]],"a":[]}"#,
                r#"{"U":1001,"u":1002,"b":[["5.0","1"]],"a":[]}"#,
            ),
            (
                Protocol::Coinbase,
                r#"{"trade_id":5,"time":"2021-04-17T16:43:37.075687Z"}"#,
                r#"{"trade_id":1005,"time":"2021-04-18T16:43:37.075687Z"}"#,
            ),
            (
                Protocol::Bithumb,
                r#"{"contDtm":"2021-06-02 08:43:34.555058","contQty":"7"}"#,
                r#"{"contDtm":"2021-06-03 08:43:34.555058","contQty":"7"}"#,
            ),
            (
                Protocol::Kraken,
                r#"[465,[["56218.3","0.15","1618678142.557535","s"]],"trade","XBT/CHF"]"#,
                r#"[465,[["56218.3","0.15","1618764542.557535","s"]],"trade","XBT/CHF"]"#,
            ),
            (
                Protocol::Okx,
                r#"{"ts":"1652459225464","checksum":-914047754,"seqId":7,"prevSeqId":-1}"#,
                r#"{"ts":"1652545625464","checksum":-914047754,"seqId":1007,"prevSeqId":-1}"#,
            ),
        ] {
            assert_eq!(shift.text(protocol, text, at), moved);
        }
    }
}
