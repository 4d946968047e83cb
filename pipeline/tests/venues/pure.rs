//! Connectors fed from recordings by hand: no sockets, no clock.

use std::sync::Arc;

use tapeline::playback::Recording;
use tapeline::venue::{
    Connector, Instrument, Item, Output, Settings, SnapshotOutcome, StatsReport, SymbolTable,
    VenueStats, take_frame, venue,
};
use tapeline_schemas::{Kind, Micros, OptionType};

use crate::common::{Collector, VENUES, assert_counts, recordings};

/// Does what a connector asked for: publishes into `collector`, answers the symbols it wants a snapshot of.
pub(crate) fn settle(out: &mut Output, collector: &Collector) -> Vec<String> {
    let mut wanted = Vec::new();
    for item in out.drain() {
        match item {
            Item::Publish(outgoing) => collector.put(outgoing),
            Item::RequestSnapshot { symbol } => wanted.push(symbol),
            Item::Resubscribe { .. } | Item::Reply { .. } => {}
        }
    }
    wanted
}

fn play(recording: &Recording) -> (StatsReport, Collector) {
    play_as(recording, recording.settings())
}

/// The recording through a connector of these settings.
pub(crate) fn play_as(recording: &Recording, settings: Settings) -> (StatsReport, Collector) {
    let spec = venue(&recording.venue).unwrap();
    let stats = Arc::new(VenueStats::default());
    let collector = Collector::default();
    let mut connector = (spec.connector)(settings);
    let mut out = Output::new(spec.name, Arc::clone(&stats));
    let mut table = SymbolTable::new();
    for request in connector.symbols_requests() {
        let answer = recording.answers.iter().find(|a| a.path == request).expect(&request);
        connector.decode_symbols(&request, answer.body.as_bytes(), &mut table).unwrap();
    }
    connector.configure(&table).unwrap();
    for connection in 0..connector.connections().len() {
        connector.opened(connection, &mut out);
    }
    let wanted = settle(&mut out, &collector);
    // Snapshots come at their recorded times between the frames.
    let mut snapshots: Vec<_> = wanted
        .iter()
        .map(|symbol| {
            let path = connector.snapshot_request(symbol).unwrap();
            (symbol, recording.answers.iter().find(|a| a.path == path).unwrap())
        })
        .collect();
    snapshots.sort_by_key(|(_, answer)| answer.time);
    let mut frames: Vec<_> = recording.connections.iter().flat_map(|c| &c.frames).collect();
    frames.sort_by_key(|frame| frame.time);
    let mut snapshots = snapshots.into_iter().peekable();
    for frame in frames {
        while let Some((symbol, answer)) = snapshots.next_if(|(_, a)| a.time <= frame.time) {
            let body = answer.body.as_bytes();
            let applied = connector.decode_snapshot(symbol, body, answer.time, &mut out).unwrap();
            assert_eq!(applied, SnapshotOutcome::Applied);
        }
        let bytes = frame.payload.as_bytes();
        take_frame(connector.as_mut(), 0, bytes, frame.time, &mut out);
        settle(&mut out, &collector);
    }
    (stats.report(), collector)
}

#[test]
fn recordings_give_exactly_the_events_they_hold() {
    let Some(dir) = recordings() else { return };
    for name in VENUES {
        let recording = Recording::read(&dir, name).unwrap();
        let (mut stats, collector) = play(&recording);
        let published = collector.take().len() as u64;
        let others = [stats.trade, stats.ticker, stats.option, stats.venue_candle];
        let events: u64 = others.iter().map(|counts| counts.received).sum();
        assert_eq!(published, events + stats.books.updates_applied + stats.books.tops);
        // What the driver counts.
        for counts in
            [&mut stats.trade, &mut stats.ticker, &mut stats.option, &mut stats.venue_candle]
        {
            counts.published = counts.received;
        }
        stats.book.published = stats.books.updates_applied + stats.books.tops;
        assert_counts(&recording, &stats);
    }
}

/// One instrument of each venue: `BTC-USD`, of Deribit an option.
pub(crate) fn instrument(name: &str) -> Instrument {
    let native = match name {
        "BINANCE" => "BTCUSD",
        "BITHUMB" => "BTC_USD",
        "DERIBIT" => {
            let code = "BTC-25DEC26-100000-C";
            let kind = OptionType::Call;
            let option = Instrument::option("BTC", "BTC", "25DEC26", "100000", kind, code).unwrap();
            return Instrument { expiry: Some(Micros(1_798_185_600_000_000)), ..option };
        }
        "KRAKEN" => "XBT/USD",
        "UPBIT" => "USD-BTC",
        _ => "BTC-USD",
    };
    Instrument::spot("BTC", "USD", native)
}

/// A connector of that instrument and every kind.
pub(crate) fn small(name: &str) -> (Box<dyn Connector>, Output, Arc<VenueStats>) {
    let spec = venue(name).unwrap();
    let stats = Arc::new(VenueStats::default());
    let instrument = instrument(name);
    let kinds = [Kind::Trade, Kind::Ticker, Kind::Book, Kind::Option, Kind::VenueCandle];
    let settings = Settings::new(vec![instrument.symbol.clone()], kinds.to_vec());
    let mut connector = (spec.connector)(settings);
    let mut table = SymbolTable::new();
    table.insert(instrument);
    connector.configure(&table).unwrap();
    let out = Output::new(spec.name, Arc::clone(&stats));
    (connector, out, stats)
}
