//! Connectors fed from recordings by hand: no sockets, no clock.

use std::sync::Arc;

use proptest::prelude::*;
use tapeline::playback::Recording;
use tapeline::venue::{
    Connector, Item, Output, Settings, SnapshotOutcome, StatsReport, SymbolTable, VenueStats,
    take_frame, venue,
};
use tapeline_schemas::{Kind, Micros};

use crate::common::{Collector, VENUES, assert_counts, recordings};

/// Does what a connector asked for: publishes into `collector`, answers the symbols it wants a snapshot of.
pub(crate) fn settle(out: &mut Output, collector: &Collector) -> Vec<String> {
    let mut wanted = Vec::new();
    for item in out.drain() {
        match item {
            Item::Publish(outgoing) => collector.put(outgoing),
            Item::RequestSnapshot { symbol } => wanted.push(symbol),
            Item::Resubscribe { .. } => {}
        }
    }
    wanted
}

fn play(recording: &Recording) -> (StatsReport, Collector) {
    let spec = venue(&recording.venue).unwrap();
    let stats = Arc::new(VenueStats::default());
    let collector = Collector::default();
    let mut connector = (spec.connector)(recording.settings());
    let mut out = Output::new(spec.name, Arc::clone(&stats));
    let symbols = connector.symbols_request();
    let table = recording.answers.iter().find(|a| a.path == symbols).unwrap();
    let table = connector.decode_symbols(table.body.as_bytes()).unwrap();
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
        // A recording's candles are not subscribed to.
        if !String::from_utf8_lossy(bytes).contains("@kline") {
            take_frame(connector.as_mut(), 0, bytes, frame.time, &mut out);
        }
        settle(&mut out, &collector);
    }
    (stats.report(), collector)
}

#[test]
fn recordings_give_exactly_the_events_they_hold() {
    let Some(dir) = recordings() else { return };
    for name in VENUES {
        let recording = Recording::read(&dir, name).unwrap();
        let (stats, collector) = play(&recording);
        let published = collector.take().len() as u64;
        let events = stats.trade.received + stats.ticker.received;
        assert_eq!(published, events + stats.books.updates_applied + stats.books.tops);
        let mut counted = stats;
        counted.trade.published = stats.trade.received;
        counted.ticker.published = stats.ticker.received;
        counted.book.published = stats.books.updates_applied + stats.books.tops;
        assert_counts(name, &counted);
    }
}

pub(crate) fn small(name: &str) -> (Box<dyn Connector>, Output, Arc<VenueStats>) {
    let spec = venue(name).unwrap();
    let stats = Arc::new(VenueStats::default());
    let settings =
        Settings::new(vec!["BTC-USD".to_owned()], vec![Kind::Trade, Kind::Ticker, Kind::Book]);
    let mut connector = (spec.connector)(settings);
    let mut table = SymbolTable::new();
    let native = ["BTCUSD", "XBT/USD", "USD-BTC"];
    let native = native[VENUES.iter().position(|v| *v == name).unwrap()];
    table.insert("BTC", "USD", native);
    connector.configure(&table).unwrap();
    let out = Output::new(spec.name, Arc::clone(&stats));
    (connector, out, stats)
}

/// Frames of every channel, to be broken by the property test.
const FRAMES: [&str; 9] = [
    r#"{"stream":"btcusd@aggTrade","data":{"s":"BTCUSD","a":1,"p":"1.5","q":"2","T":3,"m":true}}"#,
    r#"{"stream":"btcusd@bookTicker","data":{"u":1,"s":"BTCUSD","b":"1","B":"2","a":"3","A":"4"}}"#,
    r#"{"stream":"btcusd@depth@100ms","data":{"E":1,"s":"BTCUSD","U":1,"u":2,"b":[["1","2"]],"a":[]}}"#,
    r#"[1,[["354.1","0.8","1618678142.557535","s","l",""]],"trade","XBT/USD"]"#,
    r#"[1,{"a":["1",1,"2"],"b":["1",1,"2"],"c":["1","2"],"v":["1","2"],"o":["1","2"]},"ticker","XBT/USD"]"#,
    r#"[1,{"as":[["2","1","1.5"]],"bs":[["1","1","1.5"]]},"book-1000","XBT/USD"]"#,
    r#"[1,{"a":[["2","1","1.5"]]},{"b":[["1","1","1.5","r"]],"c":"1"},"book-1000","XBT/USD"]"#,
    r#"{"ty":"trade","cd":"USD-BTC","ttms":1,"tp":1.5,"tv":6E-8,"ab":"BID","sid":1}"#,
    r#"{"ty":"orderbook","cd":"USD-BTC","tms":1,"obu":[{"ap":2.0,"bp":1.0,"as":1.0,"bs":0.0}]}"#,
];

#[test]
fn hostile_messages_are_counted_each_and_nothing_is_published() {
    for name in VENUES {
        let (mut connector, mut out, stats) = small(name);
        let hostile: [&[u8]; 8] = [
            b"",
            b"{",
            b"\xff\xfe\x00",
            b"null",
            b"[1e999,2,3]",
            br#"{"error":{"code":-1,"name":"x","message":"no"},"event":"error"}"#,
            br#"{"stream":"btcusd@party","data":{},"event":"party","ty":"party","cd":"USD-BTC"}"#,
            br#"[[[[[[[[[[[[[[[[[[[[[[[[[[[["#,
        ];
        for frame in hostile {
            take_frame(connector.as_mut(), 0, frame, Micros(1), &mut out);
        }
        let report = stats.report();
        let counted = report.decode_errors + report.unknown_messages + report.venue_errors;
        assert_eq!(counted, hostile.len() as u64, "{name} {report:?}");
        assert_eq!(report.venue_errors, 1, "{name}");
        assert_eq!(out.drain().count(), 0, "{name}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_counted_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for name in VENUES {
            let (mut connector, mut out, stats) = small(name);
            take_frame(connector.as_mut(), 0, &bytes, Micros(1), &mut out);
            let _ = connector.decode_snapshot("BTC-USD", &bytes, Micros(1), &mut out);
            let _ = connector.decode_symbols(&bytes);
            let report = stats.report();
            let counted = report.decode_errors + report.unknown_messages + report.venue_errors;
            prop_assert!(counted <= 1);
        }
    }

    #[test]
    fn a_broken_frame_is_an_event_or_a_count_but_no_panic(
        frame in 0..FRAMES.len(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = FRAMES[frame].as_bytes().to_vec();
        for (place, byte) in &edits {
            let place = place.index(bytes.len());
            bytes[place] = *byte;
        }
        if edits.len() == 3 {
            bytes.truncate(cut.index(bytes.len()));
        }
        for name in VENUES {
            let (mut connector, mut out, _) = small(name);
            take_frame(connector.as_mut(), 0, &bytes, Micros(1), &mut out);
            take_frame(connector.as_mut(), 0, FRAMES[frame].as_bytes(), Micros(2), &mut out);
        }
    }
}
