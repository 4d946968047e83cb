//! Recorded exchange traffic through the whole way: sockets, Kafka, TimescaleDB, Redis.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use redis::AsyncCommands;
use sqlx::Row;
use tapeline::audit;
use tapeline::connect;
use tapeline::playback::{self, Recording, Speed};
use tapeline::venue::StatsReport;
use tapeline::venue::driver::{PlaybackClock, VenueConfig};
use tapeline::wiring::{STORED_KINDS, StageName};
use tapeline_schemas::Kind;
use tokio_util::sync::CancellationToken;

use crate::common::{Pipeline, eventually};
use crate::recorded::recorded_figures;

pub(crate) const VENUES: [&str; 7] =
    ["BINANCE", "BITHUMB", "COINBASE", "DERIBIT", "KRAKEN", "OKX", "UPBIT"];

pub(crate) fn recordings() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/recordings");
    let dir = std::env::var_os("TAPELINE_RECORDINGS").map_or(beside, PathBuf::from);
    if dir.join("expected.json").is_file() {
        return Some(dir);
    }
    println!("skipped: no recordings in {}, set TAPELINE_RECORDINGS", dir.display());
    None
}

async fn play(pipeline: &Pipeline, dir: &std::path::Path) -> BTreeMap<String, StatsReport> {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let handle = playback::serve(dir, &VENUES, listen, Speed::Max).await.expect("playback");
    let venues = VENUES
        .iter()
        .map(|name| {
            let settings = Recording::read(dir, name).expect("recording").settings();
            let (rest, ws) = (handle.rest_url(name), handle.ws_url(name));
            let venue = VenueConfig::playback(name, settings, rest, ws).expect("known");
            (venue, Arc::default())
        })
        .collect();
    let stop = CancellationToken::new();
    let reports = connect::run(&pipeline.context, venues, Arc::new(PlaybackClock), stop).await;
    handle.shutdown().await;
    reports.expect("the tapes end")
}

pub(crate) async fn all_stored(pipeline: &Pipeline) -> bool {
    let mut database = pipeline.database().await;
    let context = &pipeline.context;
    let topics = context.sink_topics(STORED_KINDS).expect("topics");
    let (kafka, id) = (&context.config.kafka, &context.config.pipeline.id);
    audit::accounted(&mut database, kafka, id, &topics).await.expect("audit").ok()
}

/// What is stored of each kind, in the form of the recordings' figures.
const STORED: [(&str, &str); 4] = [
    (
        "trade",
        "select concat_ws(' ', trim_scale(price), trim_scale(amount)) from market_data_trades",
    ),
    (
        "ticker",
        "select concat_ws(' ', trim_scale(coalesce(bid_price, 0)), trim_scale(coalesce(ask_price, 0))) \
         from market_data_ticker",
    ),
    (
        "option",
        "select concat_ws(' ', trim_scale(iv), trim_scale(delta), trim_scale(gamma), trim_scale(theta), \
         trim_scale(vega), trim_scale(open_interest)) from option_data",
    ),
    (
        "candle",
        "select concat_ws(' ', trim_scale(open), trim_scale(high), trim_scale(low), trim_scale(close), \
         trim_scale(volume), trim_scale(quote_volume)) from market_data_ohlcv",
    ),
];

/// Every figure as the venue wrote it: trailing zeros are not kept, no other digit changes (invariant 10).
async fn assert_digits(pipeline: &Pipeline, recording: &Recording) {
    let mut database = pipeline.database().await;
    let mut recorded = recorded_figures(recording);
    for (kind, sql) in STORED {
        let venue = recording.venue.as_str();
        // Ours are made of trades; what is recorded are the venue's.
        let own = if kind == "candle" { " and source = 'venue'" } else { "" };
        let sql = format!("{sql} where exchange = '{venue}'{own}");
        let mut stored: Vec<String> =
            sqlx::query_scalar(&sql).fetch_all(&mut database).await.expect("rows");
        let sent = recorded.remove(kind).unwrap_or_default();
        let mut sent: Vec<String> = sent.into_iter().map(|(figures, _)| figures).collect();
        stored.sort();
        sent.sort();
        assert_eq!(stored, sent, "{venue} {kind}, digit for digit as sent");
    }
}

/// What the venues list is in the table of instruments, with what is traded (T12).
async fn assert_instruments(pipeline: &Pipeline) {
    let venues = "select count(distinct exchange) from instruments";
    assert_eq!(pipeline.count(venues).await, VENUES.len() as i64);
    let strangers = "select count(*) from (select exchange, symbol from market_data_trades \
        union select exchange, symbol from option_data) e \
        where not exists (select from instruments i where (i.exchange, i.symbol) = (e.exchange, e.symbol))";
    assert_eq!(pipeline.count(strangers).await, 0, "every event joins to its instrument");
    let terms = "select count(*) from option_data o join instruments i using (exchange, symbol) \
        where (o.strike_price, o.expiry_date, o.option_type) \
            is distinct from (i.strike_price, i.expiry_date, i.option_type)";
    assert_eq!(pipeline.count(terms).await, 0, "an option's terms are its instrument's");
}

/// The indexes of options serve the questions they are for (T13).
async fn assert_plans(pipeline: &Pipeline) {
    let mut database = pipeline.database().await;
    // So few rows are read faster without any index.
    sqlx::query("set enable_seqscan = off").execute(&mut database).await.expect("set");
    for (index, condition) in [
        ("idx_option_data_underlying_expiry", "underlying = 'BTC' and expiry_date = '2021-09-24Z'"),
        ("idx_option_data_strike_type", "strike_price = 8000 and option_type = 'put'"),
        (
            "idx_option_data_exchange_symbol_time",
            "exchange = 'DERIBIT' and symbol = 'BTC-24SEP21-8000-P' and time > '2021-07-22Z'",
        ),
    ] {
        let sql = format!("explain select * from option_data where {condition}");
        let plan: Vec<String> =
            sqlx::query_scalar(&sql).fetch_all(&mut database).await.expect("plan");
        assert!(plan.join("\n").contains(index), "{index}: {plan:#?}");
    }
}

async fn assert_redis(pipeline: &Pipeline) {
    let client = redis::Client::open(pipeline.context.config.redis.url.as_str()).expect("url");
    let mut cache = client.get_multiplexed_async_connection().await.expect("redis");
    let mut database = pipeline.database().await;
    // The newest stored ticker of each symbol is what Redis shows, except one that was flagged for its time.
    let newest = "select distinct on (exchange, symbol) exchange, symbol, bid_price::text, ask_price::text \
         from market_data_ticker where receive_time - time <= interval '60 seconds' \
         order by exchange, symbol, time desc, origin desc";
    let rows = sqlx::query(newest).fetch_all(&mut database).await.expect("tickers");
    assert!(!rows.is_empty());
    for row in rows {
        let (exchange, symbol): (String, String) = (row.get(0), row.get(1));
        let key = format!("market_data:ticker:{exchange}:{symbol}");
        let cached = || {
            let (mut cache, key) = (cache.clone(), key.clone());
            async move {
                let (bid, ask): (Option<String>, Option<String>) =
                    cache.hmget(&key, &["bid", "ask"]).await.expect("redis");
                (bid, ask)
            }
        };
        let stored = (row.get::<Option<String>, _>(2), row.get::<Option<String>, _>(3));
        eventually(&key, || async { cached().await == stored }).await;
        let life: i64 = cache.ttl(&key).await.expect("ttl");
        assert!((1..=60).contains(&life), "{key} lives {life} s (R1)");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_traffic_arrives_whole_in_timescaledb_and_redis_digit_for_digit() {
    let Some(dir) = recordings() else { return };
    let pipeline = Pipeline::new("tape").await;
    let stages = [StageName::Validate, StageName::Store, StageName::Cache, StageName::Candles]
        .map(|stage| pipeline.start(stage));
    let reports = play(&pipeline, &dir).await;
    eventually("everything is stored", || all_stored(&pipeline)).await;
    let expected = std::fs::read_to_string(dir.join("expected.json")).expect("expected.json");
    let expected: serde_json::Value = serde_json::from_str(&expected).expect("json");
    for venue in VENUES {
        let count = |what: &str| expected[venue][what].as_i64().unwrap_or(0);
        let recording = Recording::read(&dir, venue).expect("recording");
        let settings = recording.settings();
        // Every recorded ticker of a venue with options is of an option.
        let options = if settings.channels.contains(&Kind::Option) { count("ticker") } else { 0 };
        for (table, rows) in [
            ("market_data_trades", count("trade")),
            ("market_data_ticker", count("ticker")),
            ("option_data", options),
        ] {
            let sql = format!("select count(*) from {table} where exchange = '{venue}'");
            assert_eq!(pipeline.count(&sql).await, rows, "{venue} {table}");
        }
        let sql = format!(
            "select count(*) from market_data_ohlcv where source = 'venue' and exchange = '{venue}'"
        );
        assert_eq!(pipeline.count(&sql).await, count("candle"), "{venue} candles");
        // Every applied snapshot and delta is an update; what is stored are the periodic tops.
        let books = reports[venue].books;
        assert_eq!(books.updates_applied as i64, count("book_updates"), "{venue} book updates");
        let broken = (books.checksums_failed, books.resyncs, reports[venue].gaps_opened);
        assert_eq!(broken, (0, 0, 0), "{venue}");
        let sql = format!("select count(*) from market_data_orderbook where exchange = '{venue}'");
        assert_eq!(pipeline.count(&sql).await, books.tops as i64, "{venue} book snapshots");
        let verified = match venue {
            "OKX" => books.updates_applied,
            "KRAKEN" => books.updates_applied - settings.symbols.len() as u64,
            _ => 0,
        };
        assert_eq!(books.checksums_verified, verified, "{venue}: every checksum");
        assert_digits(&pipeline, &recording).await;
    }
    let strange = "select count(*) from market_data_trades where exchange = 'BITHUMB' \
        and receive_time - time not between interval '-5 seconds' and interval '5 seconds'";
    assert_eq!(pipeline.count(strange).await, 0, "Bithumb's times are in UTC");
    assert_instruments(&pipeline).await;
    assert_plans(&pipeline).await;
    assert_redis(&pipeline).await;
    let wrong = "select count(*) from market_data_ohlcv c cross join lateral \
        (select sum(amount) as volume, count(*) as trades from market_data_trades t \
        where t.exchange = c.exchange and t.symbol = c.symbol and t.time >= c.time and t.time < c.close_time) t \
        where timeframe = '1m' and source = 'tapeline' and final and (c.volume, c.trades_count) is distinct from (t.volume, t.trades)";
    let candles = "select count(*) from market_data_ohlcv where timeframe = '1d' and source = 'tapeline' and final";
    eventually("days are closed by the end of the tapes", || async {
        pipeline.count(candles).await > 0
    })
    .await;
    assert_eq!(pipeline.count(wrong).await, 0, "a candle is its trades (invariant 7)");
    for stage in stages {
        stage.stop().await;
    }
    pipeline.finish().await;
}
