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
use tokio_util::sync::CancellationToken;

use crate::common::{Pipeline, eventually};

const VENUES: [&str; 3] = ["BINANCE", "KRAKEN", "UPBIT"];

fn recordings() -> Option<PathBuf> {
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

async fn all_stored(pipeline: &Pipeline) -> bool {
    let mut database = pipeline.database().await;
    let context = &pipeline.context;
    let topics = context.sink_topics(STORED_KINDS).expect("topics");
    let (kafka, id) = (&context.config.kafka, &context.config.pipeline.id);
    audit::accounted(&mut database, kafka, id, &topics).await.expect("audit").ok()
}

/// Price and amount of every recorded trade, as the venue wrote them, cut out of the text.
fn trades_of_kraken(dir: &std::path::Path) -> Vec<(String, String)> {
    let mut trades = Vec::new();
    for entry in std::fs::read_dir(dir).expect("recordings") {
        let path = entry.expect("entry").path();
        let name = path.file_name().expect("name").to_string_lossy().into_owned();
        if !name.starts_with("KRAKEN.ws.") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("text");
        for line in text.lines().filter(|line| line.contains(",\"trade\",")) {
            let (_, frame) = line.split_once(": ").expect("time: frame");
            let frame: serde_json::Value = serde_json::from_str(frame).expect("json");
            for trade in frame[1].as_array().expect("trades") {
                let text = |index: usize| trade[index].as_str().expect("text").to_owned();
                trades.push((text(0), text(1)));
            }
        }
    }
    trades.sort();
    trades
}

async fn assert_digits(pipeline: &Pipeline, dir: &std::path::Path) {
    let mut database = pipeline.database().await;
    let sql = "select price::text, amount::text from market_data_trades where exchange = 'KRAKEN'";
    let rows = sqlx::query(sql).fetch_all(&mut database).await.expect("trades");
    // Trailing zeros are not kept, no other digit changes.
    let trim = |text: String| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    let mut stored: Vec<(String, String)> = rows
        .iter()
        .map(|row| (trim(row.get::<String, _>(0)), trim(row.get::<String, _>(1))))
        .collect();
    let mut sent: Vec<_> = trades_of_kraken(dir)
        .into_iter()
        .map(|(price, amount)| (trim(price), trim(amount)))
        .collect();
    stored.sort();
    sent.sort();
    assert_eq!(stored, sent, "digit for digit as sent");
}

async fn assert_redis(pipeline: &Pipeline) {
    let client = redis::Client::open(pipeline.context.config.redis.url.as_str()).expect("url");
    let mut cache = client.get_multiplexed_async_connection().await.expect("redis");
    let mut database = pipeline.database().await;
    // The newest stored ticker of each symbol is what Redis shows.
    let newest = "select distinct on (exchange, symbol) exchange, symbol, bid_price::text, ask_price::text \
         from market_data_ticker order by exchange, symbol, origin desc";
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
        for (table, what) in [("market_data_trades", "trade"), ("market_data_ticker", "ticker")] {
            let sql = format!("select count(*) from {table} where exchange = '{venue}'");
            assert_eq!(pipeline.count(&sql).await, count(what), "{venue} {what}");
        }
        // Every applied snapshot and delta is an update; what is stored are the periodic tops.
        let books = reports[venue].books;
        assert_eq!(books.updates_applied as i64, count("book_updates"), "{venue} book updates");
        assert_eq!(books.checksums_failed, 0);
        let sql = format!("select count(*) from market_data_orderbook where exchange = '{venue}'");
        assert_eq!(pipeline.count(&sql).await, books.tops as i64, "{venue} book snapshots");
    }
    assert_eq!(reports["KRAKEN"].books.checksums_verified, 4269, "every Kraken update is verified");
    assert_digits(&pipeline, &dir).await;
    assert_redis(&pipeline).await;
    let wrong = "select count(*) from market_data_ohlcv c cross join lateral \
        (select sum(amount) as volume, count(*) as trades from market_data_trades t \
        where t.exchange = c.exchange and t.symbol = c.symbol and t.time >= c.time and t.time < c.close_time) t \
        where timeframe = '1m' and final and (c.volume, c.trades_count) is distinct from (t.volume, t.trades)";
    let candles = "select count(*) from market_data_ohlcv where timeframe = '1d' and final";
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
