//! What the tests share: where recordings are, and a publisher that keeps everything.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tapeline::playback::Recording;
use tapeline::venue::{Body, Outgoing, PublishError, Publisher, StatsReport};
use tapeline_schemas::{Book, BookAction, Control, Kind, Micros, Record, Ticker, Trade};

pub(crate) const VENUES: [&str; 3] = ["BINANCE", "KRAKEN", "UPBIT"];

/// Directory of the recordings; none, said aloud, where there are none.
pub(crate) fn recordings() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/recordings");
    let dir = std::env::var_os("TAPELINE_RECORDINGS").map_or(beside, PathBuf::from);
    if dir.join("expected.json").is_file() {
        return Some(dir);
    }
    println!("skipped: no recordings in {}, set TAPELINE_RECORDINGS", dir.display());
    None
}

/// What the recordings' own list says of `venue`: trades, tickers, book updates.
pub(crate) fn expected(venue: &str) -> (u64, u64, u64) {
    let dir = recordings().expect("asked after they were found");
    let text = std::fs::read_to_string(dir.join("expected.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let count = |name: &str| all[venue][name].as_u64().unwrap_or_default();
    (count("trade"), count("ticker"), count("book_updates"))
}

pub(crate) fn assert_counts(venue: &str, stats: &StatsReport) {
    let (trades, tickers, updates) = expected(venue);
    assert_eq!(stats.trade.received, trades, "{venue} trades");
    assert_eq!(stats.trade.published, trades, "{venue} trades");
    assert_eq!(stats.ticker.received, tickers, "{venue} tickers");
    assert_eq!(stats.ticker.published, tickers, "{venue} tickers");
    assert_eq!(stats.books.updates_applied, updates, "{venue} book updates");
    assert_eq!(stats.book.published, updates + stats.books.tops, "{venue} book records");
    let quiet = (stats.books.resyncs, stats.books.checksums_failed, stats.gaps_opened);
    assert_eq!(quiet, (0, 0, 0), "{venue} breaks");
    let odd = (stats.decode_errors, stats.unknown_messages, stats.venue_errors);
    assert_eq!(odd, (0, 0, 0), "{venue} messages not understood");
    if venue == "KRAKEN" {
        let pairs = 10;
        assert_eq!(stats.books.checksums_verified, updates - pairs, "every delta is verified");
    }
}

/// One thing published, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Published {
    Trade(Trade<'static>),
    Ticker(Ticker<'static>),
    Book(Book<'static>),
    Control(Kind, Control),
    Broadcast(Kind, Control),
}

/// Keeps what is published; the payloads are read back through the codec.
#[derive(Debug, Default, Clone)]
pub(crate) struct Collector(Arc<Mutex<Vec<Published>>>);

impl Collector {
    pub(crate) fn take(&self) -> Vec<Published> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn put(&self, outgoing: Outgoing) {
        let (kind, key) = (outgoing.kind, outgoing.key);
        let (published, of) = match outgoing.body {
            Body::Control(control) => (Published::Control(kind, control), None),
            Body::Event(bytes) => {
                // The events of a test may live as long as the test binary.
                let bytes: &'static [u8] = Box::leak(bytes.into_boxed_slice());
                match kind {
                    Kind::Trade => {
                        let trade = Trade::decode(bytes).unwrap();
                        let of = format!("{}:{}", trade.exchange, trade.symbol);
                        (Published::Trade(trade), Some(of))
                    }
                    Kind::Ticker => {
                        let ticker = Ticker::decode(bytes).unwrap();
                        let of = format!("{}:{}", ticker.exchange, ticker.symbol);
                        (Published::Ticker(ticker), Some(of))
                    }
                    _ => {
                        let book = Book::decode(bytes).unwrap();
                        let of = format!("{}:{}", book.exchange, book.symbol);
                        (Published::Book(book), Some(of))
                    }
                }
            }
        };
        assert!(of.is_none_or(|of| of == key), "{key}");
        self.0.lock().unwrap().push(published);
    }
}

impl Publisher for Collector {
    async fn publish(&self, outgoing: Outgoing) -> Result<(), PublishError> {
        self.put(outgoing);
        Ok(())
    }

    async fn broadcast(&self, kind: Kind, control: Control) -> Result<(), PublishError> {
        self.0.lock().unwrap().push(Published::Broadcast(kind, control));
        Ok(())
    }
}

/// Price, amount (or bid and ask) and receive times as the recording's text has them, read by another
/// way than the connectors': numbers are cut out of the text.
pub(crate) fn recorded_figures(
    recording: &Recording,
) -> BTreeMap<&'static str, Vec<(String, Micros)>> {
    let mut out: BTreeMap<&'static str, Vec<(String, Micros)>> = BTreeMap::new();
    let frames = recording.connections.iter().flat_map(|connection| &connection.frames);
    for frame in frames {
        let text = String::from_utf8(frame.payload.as_bytes().to_vec()).unwrap();
        let mut put =
            |kind, figures: String| out.entry(kind).or_default().push((figures, frame.time));
        if text.contains("@aggTrade\"") {
            put("trade", [after(&text, "\"p\":"), after(&text, "\"q\":")].join(" "));
        } else if text.contains("@bookTicker\"") {
            put("ticker", [after(&text, "\"b\":"), after(&text, "\"a\":")].join(" "));
        } else if text.contains("\"ty\":\"trade\"") {
            put("trade", [after(&text, "\"tp\":"), after(&text, "\"tv\":")].join(" "));
        } else if text.contains(",\"trade\",\"") {
            let inner = text.split_once(",[[").unwrap().1.split_once("]],").unwrap().0;
            for row in inner.split("],[") {
                let mut fields = row.split(',').map(|field| plain(field.trim_matches('"')));
                let figures = [fields.next().unwrap(), fields.next().unwrap()];
                put("trade", figures.join(" "));
            }
        } else if text.contains(",\"ticker\",\"") {
            put("ticker", [after(&text, "\"b\":["), after(&text, "\"a\":[")].join(" "));
        }
    }
    out
}

fn after(text: &str, key: &str) -> String {
    let rest = text.split_once(key).unwrap().1.trim_start_matches('"');
    plain(rest.split(['"', ',', '}', ']']).next().unwrap())
}

/// The text of a decimal number without the zeros that say nothing.
fn plain(text: &str) -> String {
    assert!(!text.contains(['e', 'E']), "write this one by hand: {text}");
    if !text.contains('.') {
        return text.to_owned();
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The same figures of what was published.
pub(crate) fn published_figures(
    all: &[Published],
) -> BTreeMap<&'static str, Vec<(String, Micros)>> {
    let mut out: BTreeMap<&'static str, Vec<(String, Micros)>> = BTreeMap::new();
    for published in all {
        match published {
            Published::Trade(t) => {
                let figures = format!("{} {}", t.price, t.amount);
                out.entry("trade").or_default().push((figures, t.receive_time));
            }
            Published::Ticker(t) => {
                let figures = format!("{} {}", t.bid.unwrap(), t.ask.unwrap());
                out.entry("ticker").or_default().push((figures, t.receive_time));
            }
            _ => {}
        }
    }
    for list in out.values_mut() {
        list.sort_by_key(|(_, time)| *time);
    }
    out
}

pub(crate) fn books(all: &[Published], action: BookAction) -> Vec<&Book<'static>> {
    all.iter()
        .filter_map(|published| match published {
            Published::Book(book) if book.action == action => Some(book),
            _ => None,
        })
        .collect()
}
