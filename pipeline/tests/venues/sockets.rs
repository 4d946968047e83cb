//! Driver against playback over real sockets.

use std::sync::Arc;

use tapeline::playback::{self, Recording, Speed};
use tapeline::venue::driver::{self, DriverError, PlaybackClock, VenueConfig};
use tapeline::venue::{StatsReport, VenueStats};
use tapeline_schemas::{BookAction, Control, Kind, Micros, Timeframe};
use tokio_util::sync::CancellationToken;

use crate::common::{Collector, Published, VENUES, assert_counts, books, recordings};
use crate::figures::published_figures;
use crate::recorded::recorded_figures;

pub(crate) async fn run(config: VenueConfig) -> (StatsReport, Vec<Published>) {
    let collector = Collector::default();
    let stats = driver::run(
        config,
        Arc::new(collector.clone()),
        Arc::new(PlaybackClock),
        Arc::new(VenueStats::default()),
        CancellationToken::new(),
    )
    .await
    .unwrap();
    (stats, collector.take())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_played_over_sockets_gives_every_event_with_its_recorded_time_and_digits() {
    let Some(dir) = recordings() else { return };
    let addr = "127.0.0.1:0".parse().unwrap();
    let server = playback::serve(&dir, &VENUES, addr, Speed::Max).await.unwrap();
    for venue in VENUES {
        let recording = Recording::read(&dir, venue).unwrap();
        let (rest, ws) = (server.rest_url(venue), server.ws_url(venue));
        let config = VenueConfig::playback(venue, recording.settings(), rest, ws).unwrap();
        let (stats, published) = run(config).await;
        assert_counts(&recording, &stats);
        assert_eq!(published_figures(&published), recorded_figures(&recording), "{venue}");
        assert_complete_is_never_early(&published);
        for top in books(&published, BookAction::Top) {
            assert!(top.bids.len() <= 25 && top.asks.len() <= 25);
            if let (Some(bid), Some(ask)) = (top.bids.first(), top.asks.first()) {
                assert!(bid.price < ask.price, "{venue} {}", top.symbol);
            }
        }
        let frames = recording.connections.iter().flat_map(|c| &c.frames);
        let last = frames.map(|frame| frame.time).max().unwrap();
        assert_last_word(&published, venue, last);
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paced_playback_gives_the_same_and_takes_its_time() {
    let Some(dir) = recordings() else { return };
    let addr = "127.0.0.1:0".parse().unwrap();
    let times = 60.0;
    let server = playback::serve(&dir, &["BINANCE"], addr, Speed::Times(times)).await.unwrap();
    let recording = Recording::read(&dir, "BINANCE").unwrap();
    let (rest, ws) = (server.rest_url("BINANCE"), server.ws_url("BINANCE"));
    let config = VenueConfig::playback("BINANCE", recording.settings(), rest, ws).unwrap();
    let start = std::time::Instant::now();
    let (stats, published) = run(config).await;
    let frames = &recording.connections[0].frames;
    let recorded = frames.last().unwrap().time.since(frames[0].time);
    assert!(start.elapsed().as_micros() >= u128::try_from(recorded).unwrap() / 60);
    assert_counts(&recording, &stats);
    assert_eq!(published_figures(&published), recorded_figures(&recording));
    assert_complete_is_never_early(&published);
}

/// After "complete through T" nothing with a time up to T may follow.
fn assert_complete_is_never_early(published: &[Published]) {
    for kind in [Kind::Trade, Kind::Ticker, Kind::Book, Kind::Option, Kind::VenueCandle] {
        let mut covered = Micros(i64::MIN);
        for one in published {
            let (of, time) = match one {
                Published::Trade(t) => (Kind::Trade, t.receive_time),
                Published::Ticker(t) => (Kind::Ticker, t.receive_time),
                Published::Book(b) => (Kind::Book, b.receive_time),
                Published::Option(o) => (Kind::Option, o.receive_time),
                Published::Candle(c) => (Kind::VenueCandle, c.receive_time),
                Published::Broadcast(of, Control::Complete { through, .. }) if *of == kind => {
                    assert!(*through > covered);
                    covered = *through;
                    continue;
                }
                _ => continue,
            };
            assert!(of != kind || time > covered, "{one:?} after complete through {covered:?}");
        }
    }
}

fn assert_last_word(published: &[Published], venue: &str, last: Micros) {
    let through = Timeframe::D1.end(Timeframe::D1.start(last));
    let complete = Control::Complete { venue: venue.to_owned(), through };
    let words = published.iter().rev().take_while(|p| matches!(p, Published::Broadcast(..)));
    assert!(words.count() >= 1, "{venue}");
    assert!(
        matches!(published.last(), Some(Published::Broadcast(_, c)) if *c == complete),
        "{venue} {:?}",
        published.last()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configured_symbol_that_a_venue_does_not_list_is_refused_with_near_matches() {
    let Some(dir) = recordings() else { return };
    let addr = "127.0.0.1:0".parse().unwrap();
    let server = playback::serve(&dir, &VENUES, addr, Speed::Max).await.unwrap();
    for venue in VENUES {
        let mut settings = Recording::read(&dir, venue).unwrap().settings();
        let listed = settings.symbols[0].clone();
        // The first two letters change places.
        let wrong = format!("{}{}{}", &listed[1..2], &listed[..1], &listed[2..]);
        settings.symbols.push(wrong.clone());
        let (rest, ws) = (server.rest_url(venue), server.ws_url(venue));
        let error = driver::run(
            VenueConfig::playback(venue, settings, rest, ws).unwrap(),
            Arc::new(Collector::default()),
            Arc::new(PlaybackClock),
            Arc::new(VenueStats::default()),
            CancellationToken::new(),
        )
        .await
        .unwrap_err();
        let DriverError::UnknownSymbol(unknown) = &error else { panic!("{venue} {error}") };
        assert_eq!(unknown.symbol, wrong);
        assert!(!unknown.near.is_empty() && error.to_string().contains("did you mean"), "{error}");
    }
    server.shutdown().await;
}
