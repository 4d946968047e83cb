//! Holes in feeds: recorded, shown, filled from the venue's past, and then as if they had never been.

use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{OriginalUri, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tapeline::config::{Config, VenueConfig};
use tapeline::connect;
use tapeline::playback::Speed;
use tapeline::playback::simulated::{self, Simulated};
use tapeline::venue::driver::{PlaybackClock, RECORDED_AT};
use tapeline::wiring::StageName;
use tapeline_schemas::{
    Candle, CandleSource, GapState, Kind, Micros, Money, Timeframe, Wide, encode,
};
use tokio_util::sync::CancellationToken;

use crate::common::{Pipeline, Process, eventually};
use crate::look;

/// What stands before the venue and answers requests for trades in its own way, so many times.
#[derive(Default)]
struct Moods {
    /// Knows of no trade.
    empty: AtomicUsize,
    /// Asked too often.
    refuses: AtomicUsize,
    /// Breaks down.
    fails: AtomicUsize,
    /// Never answers what follows a first page of the second symbol.
    hangs: AtomicUsize,
    /// Requests that are not answered.
    hanging: AtomicUsize,
    /// Pages of trades that were given.
    pages: AtomicUsize,
}

struct Front {
    venue: String,
    moods: Moods,
}

fn spend(mood: &AtomicUsize) -> bool {
    mood.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

async fn answer(State(front): State<Arc<Front>>, OriginalUri(uri): OriginalUri) -> Response {
    let path = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let moods = &front.moods;
    if path.contains("aggTrades") {
        if spend(&moods.refuses) {
            let wait = [(header::RETRY_AFTER, "1")];
            return (StatusCode::TOO_MANY_REQUESTS, wait, "slower").into_response();
        }
        if spend(&moods.fails) {
            return (StatusCode::BAD_GATEWAY, "down").into_response();
        }
        if spend(&moods.empty) {
            return ([(RECORDED_AT, "1704164640000000")], "[]").into_response();
        }
        if path.contains("fromId") && path.contains("ETHUSDT") && spend(&moods.hangs) {
            moods.hanging.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        moods.pages.fetch_add(1, Ordering::SeqCst);
    }
    let answered = reqwest::get(format!("{}{path}", front.venue)).await.expect("the venue");
    let time = answered.headers().get(RECORDED_AT).cloned().expect("a recorded time");
    ([(RECORDED_AT, time)], answered.bytes().await.expect("a body")).into_response()
}

/// A venue whose stream loses a minute of trades, behind a front.
struct Venue {
    simulated: Simulated,
    front: Arc<Front>,
    url: String,
    _stops: tokio_util::sync::DropGuard,
}

impl Venue {
    async fn start() -> Venue {
        let config = simulated::Config {
            events: 2_400,
            events_per_second: 10,
            faults_each: 0,
            trades_lost: 900..1_500,
            ..simulated::Config::default()
        };
        let addr = "127.0.0.1:0".parse().expect("an address");
        let simulated = simulated::serve(&config, addr, Speed::Max).await.expect("a venue");
        let venue = simulated.handle.rest_url("binance");
        let front = Arc::new(Front { venue, moods: Moods::default() });
        let listener = tokio::net::TcpListener::bind(addr).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let app = Router::new().fallback(answer).with_state(Arc::clone(&front));
        let stop = CancellationToken::new();
        let until = stop.clone();
        tokio::spawn(async move {
            until.run_until_cancelled(axum::serve(listener, app).into_future()).await
        });
        Venue { simulated, front, url, _stops: stop.drop_guard() }
    }

    fn configure(&self, config: &mut Config) {
        let venue = VenueConfig {
            symbols: ["BTC-USDT", "ETH-USDT", "SOL-USDT"].map(str::to_owned).to_vec(),
            channels: vec!["trade".to_owned()],
            rest_url: Some(self.url.clone()),
            ws_url: Some(self.simulated.handle.ws_url("binance")),
            ..VenueConfig::default()
        };
        config.connect.venues.insert("BINANCE".to_owned(), venue);
    }

    /// The connector, until its tape ends.
    async fn play(&self, pipeline: &Pipeline) {
        let context = pipeline.member(|config| self.configure(config));
        let mut venues = connect::configured(&context, &[]).await.expect("venues");
        venues.iter_mut().for_each(|venue| venue.finite = true);
        let venues = venues.into_iter().map(|venue| (venue, Arc::default())).collect();
        let stop = CancellationToken::new();
        connect::run(&context, venues, Arc::new(PlaybackClock), stop).await.expect("the tape ends");
    }

    fn command(&self, pipeline: &Pipeline, args: &[&str]) -> Command {
        let mut command = pipeline.command(args, |config| self.configure(config));
        command.stdout(Stdio::piped());
        command
    }

    async fn output(&self, pipeline: &Pipeline, args: &[&str]) -> (Output, Vec<Value>) {
        let mut command = self.command(pipeline, args);
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("joins");
        let output = output.expect("the binary starts");
        let lines = String::from_utf8_lossy(&output.stdout);
        let lines = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (output, lines)
    }
}

const BACKFILL: [&str; 4] = ["backfill", "--gaps", "--playback", "--json"];

/// Content of every table of events, and of the continuity of feeds.
async fn content(pipeline: &Pipeline) -> Vec<String> {
    let mut database = pipeline.database().await;
    let mut sums = Vec::new();
    for (table, order) in [
        ("market_data_trades", "exchange, symbol, time, trade_id"),
        ("market_data_ohlcv", "exchange, symbol, timeframe, source, time"),
        ("market_data_gaps", "exchange, symbol, channel, from_time"),
        ("market_data_anomalies", "origin_topic, origin_partition, origin, time"),
        ("tapeline_ledger", "pipeline, topic, partition, first_offset"),
    ] {
        let sql = format!(
            "select coalesce(md5(string_agg(t::text, '|' order by {order})), '') from {table} t"
        );
        sums.push(sqlx::query_scalar(&sql).fetch_one(&mut database).await.expect(table));
    }
    sums
}

async fn settled(pipeline: &Pipeline) -> bool {
    let report = look::audited(pipeline).await;
    report.ok && look::is_settled(&report)
}

const INCOMPLETE: &str =
    "select count(*) from market_data_ohlcv where source = 'tapeline' and not final";
const UNFILLED: &str = "select count(*) from market_data_gaps where state <> 'filled'";
const TRADES: &str = "select count(*) from market_data_trades";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_is_filled_from_the_venues_past_and_its_candles_become_final_invariants_5_and_7() {
    let pipeline = Pipeline::new("backfill").await;
    let stages = [StageName::Validate, StageName::Store, StageName::Candles]
        .map(|stage| pipeline.start(stage));
    let venue = Venue::start().await;
    venue.play(&pipeline).await;
    let (sent, lost) = (venue.simulated.report.trades, venue.simulated.report.trades_lost);
    assert!(lost > 50, "{lost}");
    eventually("three holes are recorded", || async {
        pipeline.count("select count(*) from market_data_gaps where state = 'ended'").await == 3
    })
    .await;
    eventually("candles over them are incomplete", || async {
        pipeline.count(INCOMPLETE).await > 0 && settled(&pipeline).await
    })
    .await;
    assert_eq!(pipeline.count(TRADES).await, sent as i64);
    let (shown, holes) = venue.output(&pipeline, &["gaps", "--open", "--json"]).await;
    assert!(shown.status.success() && holes.len() == 3, "{shown:?}");
    assert!(holes.iter().all(|hole| hole["cause"] == "sequence" && hole["channel"] == "trade"));

    leaves_what_the_venue_does_not_give(&pipeline, &venue).await;
    is_killed_in_the_middle_of_a_hole(&pipeline, &venue).await;
    two_at_once_fill_everything(&pipeline, &venue).await;

    assert_eq!(pipeline.count(TRADES).await, (sent + lost) as i64, "each trade once");
    eventually("every candle is final", || async {
        pipeline.count(INCOMPLETE).await == 0 && settled(&pipeline).await
    })
    .await;
    let (_, holes) = venue.output(&pipeline, &["gaps", "--json"]).await;
    assert!(holes.iter().all(|hole| hole["filled_by"] == "backfill"), "{holes:?}");
    the_venues_candles_come_too_and_agree(&pipeline, &venue).await;
    again_it_changes_nothing(&pipeline, &venue).await;
    the_candle_before_a_hole_is_corrected(&pipeline, &venue).await;
    for stage in stages {
        stage.stop().await;
    }
    pipeline.finish().await;
}

/// A past without the trades that the feed gave proves nothing: the holes stay, and the command says so.
async fn leaves_what_the_venue_does_not_give(pipeline: &Pipeline, venue: &Venue) {
    venue.front.moods.empty.store(100, Ordering::SeqCst);
    let (output, lines) = venue.output(pipeline, &BACKFILL).await;
    venue.front.moods.empty.store(0, Ordering::SeqCst);
    assert_eq!((output.status.code(), lines.len()), (Some(1), 3), "{output:?}");
    for line in lines {
        assert!(line["doubt"].as_str().is_some_and(|doubt| doubt.contains("numbers")), "{line}");
    }
    assert_eq!(pipeline.count(UNFILLED).await, 3);
}

async fn is_killed_in_the_middle_of_a_hole(pipeline: &Pipeline, venue: &Venue) {
    let before = pipeline.count(TRADES).await;
    let moods = &venue.front.moods;
    moods.hangs.store(1, Ordering::SeqCst);
    let killed = Process(venue.command(pipeline, &BACKFILL).spawn().expect("starts"));
    eventually("a hole is filled and a page of the next one awaited", || async {
        moods.hanging.load(Ordering::SeqCst) == 1 && pipeline.count(TRADES).await > before
    })
    .await;
    drop(killed);
    assert_eq!(pipeline.count(UNFILLED).await, 2, "nothing says that the second hole is filled");
}

async fn two_at_once_fill_everything(pipeline: &Pipeline, venue: &Venue) {
    venue.front.moods.refuses.store(1, Ordering::SeqCst);
    venue.front.moods.fails.store(2, Ordering::SeqCst);
    let (one, other) =
        tokio::join!(venue.output(pipeline, &BACKFILL), venue.output(pipeline, &BACKFILL));
    let filled =
        |lines: &[Value]| -> u64 { lines.iter().filter_map(|line| line["filled"].as_u64()).sum() };
    for (output, lines) in [&one, &other] {
        assert!(output.status.success(), "{output:?}");
        assert!(lines.iter().all(|line| line["doubt"].is_null()), "{lines:?}");
    }
    assert_eq!(filled(&one.1) + filled(&other.1), 2, "{one:?} {other:?}");
    assert_eq!(pipeline.count(UNFILLED).await, 0);
}

/// Of whole minutes of the tape, which begins with one.
async fn the_venues_candles_come_too_and_agree(pipeline: &Pipeline, venue: &Venue) {
    let start = simulated::Config::default().start;
    let (from, to) = (start.to_string(), Micros(start.0 + 180_000_000).to_string());
    let range = ["backfill", "--playback", "--json", "--from", &from, "--to", &to];
    let (output, lines) =
        venue.output(pipeline, &[&range[..], &["--kinds", "venue_candle"]].concat()).await;
    assert!(output.status.success(), "{output:?}");
    assert!(lines.iter().all(|line| line["counts"]["published"] == 3), "{lines:?}");
    let candles = "select count(*) from market_data_ohlcv where source = 'venue'";
    eventually("nine candles of the venue", || async { pipeline.count(candles).await == 9 }).await;
    let differs = "select count(*) from market_data_ohlcv v join market_data_ohlcv t \
        using (exchange, symbol, timeframe, time) where v.source = 'venue' and t.source = 'tapeline' \
        and (v.open, v.high, v.low, v.close, v.volume, v.trades_count) \
            is distinct from (t.open, t.high, t.low, t.close, t.volume, t.trades_count)";
    assert_eq!(pipeline.count(differs).await, 0);
}

async fn again_it_changes_nothing(pipeline: &Pipeline, venue: &Venue) {
    eventually("at rest", || settled(pipeline)).await;
    let before = content(pipeline).await;
    let (output, lines) = venue.output(pipeline, &BACKFILL).await;
    assert!(output.status.success() && lines.is_empty(), "{output:?}");
    let start = simulated::Config::default().start;
    let (from, to) = (start.to_string(), Micros(start.0 + 180_000_000).to_string());
    let range = ["backfill", "--playback", "--json", "--from", &from, "--to", &to];
    let (output, lines) = venue.output(pipeline, &range).await;
    assert!(output.status.success() && lines.len() == 6, "{output:?}");
    for line in lines {
        let counts = &line["counts"];
        assert!(counts["published"] == 0 && counts["known"].as_u64() > Some(0), "{line}");
    }
    eventually("at rest", || settled(pipeline)).await;
    assert_eq!(content(pipeline).await, before);
}

/// The last word on a window comes behind its end. Here a hole took it, of the tape's last minute.
async fn the_candle_before_a_hole_is_corrected(pipeline: &Pipeline, venue: &Venue) {
    let open_time = Micros(simulated::Config::default().start.0 + 180_000_000);
    let close_time = Timeframe::M1.end(open_time);
    let one: Money = "1".parse().expect("money");
    let unfinished = Candle {
        exchange: "BINANCE".into(),
        symbol: "BTC-USDT".into(),
        timeframe: "1m".into(),
        source: CandleSource::Venue,
        open_time,
        close_time,
        open: one,
        high: one,
        low: one,
        close: one,
        volume: one,
        quote_volume: Wide::ZERO,
        trades_count: 1,
        is_final: false,
        revision: 1,
        receive_time: close_time,
    };
    let (key, publisher) = ("BINANCE:BTC-USDT", pipeline.context.publisher().expect("publisher"));
    publisher.event(Kind::VenueCandle, key, &encode(&unfinished)).await.expect("published");
    publisher.delivered().await.expect("delivered");
    let (from, to) = (close_time.plus(50_000), close_time.plus(900_000));
    for (state, to) in [(GapState::Opened, None), (GapState::Ended, Some(to))] {
        let feed = ("BINANCE", "BTC-USDT", Kind::VenueCandle);
        look::gap(pipeline, feed, state, from, to).await;
    }
    eventually("its hole is recorded", || async {
        pipeline.count("select count(*) from market_data_gaps where state = 'ended'").await == 1
    })
    .await;
    let count = |condition: &str| {
        let sql = format!(
            "select count(*) from market_data_ohlcv where source = 'venue' and symbol = 'BTC-USDT' \
             and time = '{open_time}'::timestamptz and {condition}"
        );
        async move { pipeline.count(&sql).await }
    };
    assert_eq!(count("not final and volume = 1").await, 1);
    let (output, lines) = venue.output(pipeline, &BACKFILL).await;
    assert!(output.status.success() && lines.len() == 1, "{output:?}");
    assert!(lines[0]["filled"] == 1 && lines[0]["counts"]["published"] == 1, "{lines:?}");
    eventually("it is corrected", || async { count("final and trades_count > 1").await == 1 })
        .await;
}
