//! What the tests share: where recordings are, and a publisher that keeps everything.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tapeline::playback::Recording;
use tapeline::venue::{Body, Outgoing, PublishError, Publisher, Settings, StatsReport};
use tapeline_schemas::{
    Book, BookAction, Candle, Control, GapChange, GapState, Kind, OptionData, Record, Ticker, Trade,
};

pub(crate) const VENUES: [&str; 7] =
    ["BINANCE", "BITHUMB", "COINBASE", "DERIBIT", "KRAKEN", "OKX", "UPBIT"];

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

/// What the recordings' own list says of `venue`.
fn expected(venue: &str, what: &str) -> u64 {
    let dir = recordings().expect("asked after they were found");
    let text = std::fs::read_to_string(dir.join("expected.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    all[venue][what].as_u64().unwrap_or_default()
}

pub(crate) fn assert_counts(recording: &Recording, stats: &StatsReport) {
    let venue = recording.venue.as_str();
    let settings = recording.settings();
    let options = settings.channels.contains(&Kind::Option);
    for (kind, counts) in stats.kinds() {
        let received = match kind {
            Kind::Trade => expected(venue, "trade"),
            Kind::Ticker => expected(venue, "ticker"),
            // Every recorded ticker of that venue is of an option.
            Kind::Option if options => expected(venue, "ticker"),
            Kind::VenueCandle => expected(venue, "candle"),
            _ => 0,
        };
        if kind != Kind::Book {
            let counted = (counts.received, counts.published);
            assert_eq!(counted, (received, received), "{venue} {}", kind.name());
        }
    }
    let updates = expected(venue, "book_updates");
    assert_eq!(stats.books.updates_applied, updates, "{venue} book updates");
    assert_eq!(stats.book.published, updates + stats.books.tops, "{venue} book records");
    let quiet = (stats.books.resyncs, stats.books.checksums_failed, stats.gaps_opened);
    assert_eq!(quiet, (0, 0, 0), "{venue} breaks");
    let odd = (stats.decode_errors, stats.unknown_messages, stats.venue_errors);
    assert_eq!(odd, (0, 0, 0), "{venue} messages not understood");
    let verified = match venue {
        "OKX" => updates,
        // A snapshot carries no checksum there.
        "KRAKEN" => updates - settings.symbols.len() as u64,
        _ => 0,
    };
    assert_eq!(stats.books.checksums_verified, verified, "{venue}: every checksum is verified");
}

/// One thing published, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Published {
    Trade(Trade<'static>),
    Ticker(Ticker<'static>),
    Book(Book<'static>),
    Option(OptionData<'static>),
    Candle(Candle<'static>),
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
                    Kind::Option => {
                        let option = OptionData::decode(bytes).unwrap();
                        let of = format!("{}:{}", option.exchange, option.symbol);
                        (Published::Option(option), Some(of))
                    }
                    Kind::VenueCandle => {
                        let candle = Candle::decode(bytes).unwrap();
                        let of = format!("{}:{}", candle.exchange, candle.symbol);
                        (Published::Candle(candle), Some(of))
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

    async fn left_open(
        &self,
        venue: &'static str,
        settings: &Settings,
    ) -> Result<Vec<GapChange>, PublishError> {
        let mut open: Vec<GapChange> = Vec::new();
        for published in self.take() {
            let Published::Control(kind, Control::Gap(gap)) = published else { continue };
            open.retain(|of| {
                (&of.channel, &of.symbol, of.from) != (&gap.channel, &gap.symbol, gap.from)
            });
            let is_wanted = gap.venue == venue && settings.channels.contains(&kind);
            if is_wanted && gap.state == GapState::Opened {
                open.push(gap);
            }
        }
        Ok(open)
    }
}

pub(crate) fn books(all: &[Published], action: BookAction) -> Vec<&Book<'static>> {
    all.iter()
        .filter_map(|published| match published {
            Published::Book(book) if book.action == action => Some(book),
            _ => None,
        })
        .collect()
}
