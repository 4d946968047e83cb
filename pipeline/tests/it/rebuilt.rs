//! Redis comes back from the database as the cache had written it, and nothing newer gives way (invariant 6, R2).

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use sqlx::Executor as _;
use tapeline::lag::lag;
use tapeline::rebuild::{self, KindReport, Request};
use tapeline::wiring::StageName;
use tapeline_schemas::{
    Book, BookAction, Control, Kind, Level, Micros, Money, Ticker, encode, partition_for,
};

use crate::common::{Pipeline, eventually};
use crate::look::{self, audited, examined, is_settled, trade};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
/// 2021-04-17T00:00:00Z, a day's start: a recording of another year is shown too.
const DAY: i64 = 1_618_617_600_000_000;
/// Final candles of eight minutes of two symbols.
const CANDLES: i64 = 2 * (8 + 2 + 1 + 1 + 1 + 1);
/// Of tickers; each in a partition of its own.
const SYMBOLS: [&str; 4] = ["A-USD", "B-USD", "C-USD", "D-USD"];
/// Keys: four tickers, two books, six timeframes of two symbols.
const KEYS: [(Kind, u64); 3] = [(Kind::Ticker, 4), (Kind::Book, 2), (Kind::Candle, 12)];

type Contents = BTreeMap<String, BTreeMap<String, String>>;

fn ticker(symbol: &str, number: i64, second: i64) -> Ticker<'static> {
    Ticker {
        exchange: "TEST".into(),
        symbol: symbol.to_owned().into(),
        event_id: Some(number.to_string().into()),
        last: Some(number.to_string().parse().expect("a price")),
        bid: Some("0.000000000000000001".parse().expect("a price")),
        bid_volume: None,
        ask: None,
        ask_volume: Some("12345678901234567890.5".parse().expect("an amount")),
        volume_24h: None,
        quote_volume_24h: None,
        price_change_24h: Some("-1.25".parse().expect("a change")),
        price_change_percent_24h: None,
        venue_time: Micros(DAY + second * SECOND + 7),
        receive_time: Micros(DAY + second * SECOND + 9),
    }
}

fn book(symbol: &str, event_id: Option<&'static str>, sequence: Option<i64>) -> Book<'static> {
    let level = |price: &str| Level { price: price.parse().expect("price"), amount: Money::ONE };
    Book {
        exchange: "TEST".into(),
        symbol: symbol.to_owned().into(),
        action: BookAction::Top,
        event_id: event_id.map(Into::into),
        bids: vec![level("99.5"), level("99")],
        asks: Vec::new(),
        first_sequence: None,
        sequence,
        checksum: None,
        venue_time: Micros(DAY + SECOND),
        receive_time: Micros(DAY + SECOND),
    }
}

async fn publish(pipeline: &Pipeline, tickers: &[Ticker<'_>], books: &[Book<'_>]) {
    let publisher = pipeline.context.publisher().expect("publisher");
    for ticker in tickers {
        let key = format!("TEST:{}", ticker.symbol);
        publisher.event(Kind::Ticker, &key, &encode(ticker)).await.expect("published");
    }
    for book in books {
        let key = format!("TEST:{}", book.symbol);
        publisher.event(Kind::Book, &key, &encode(book)).await.expect("published");
    }
    publisher.delivered().await.expect("delivered");
}

/// Trades whose candles are final, before anything that lives for a minute only.
async fn publish_candles(pipeline: &Pipeline) {
    let trades: Vec<_> = (0..32)
        .flat_map(|id| ["A-USD", "B-USD"].map(|symbol| (id, symbol)))
        .map(|(id, symbol)| trade("TEST", symbol, id, "100.5", DAY + id * MINUTE / 4))
        .collect();
    look::publish(pipeline, &trades).await;
    let publisher = pipeline.context.publisher().expect("publisher");
    let through = Micros(DAY + 2 * 24 * 60 * MINUTE);
    let complete = Control::Complete { venue: "TEST".to_owned(), through };
    publisher.broadcast(Kind::Trade, &complete).await.expect("control");
    publisher.delivered().await.expect("delivered");
    eventually("the candles are final", || async {
        let report = audited(pipeline).await;
        is_settled(&report) && examined(&report, "candles") == CANDLES
    })
    .await;
}

/// Every way in which the newest value is not simply the last one.
async fn publish_values(pipeline: &Pipeline) {
    let mut nameless = ticker("B-USD", 1, 1);
    nameless.event_id = None;
    let mut future = ticker("C-USD", 2, 2);
    future.venue_time = Micros(future.receive_time.0 + 10 * SECOND);
    let tickers = [
        ticker("A-USD", 1, 1),
        ticker("A-USD", 2, 2),
        ticker("A-USD", 3, 2), // of the same time
        nameless,
        ticker("C-USD", 1, 1),
        future,
        ticker("D-USD", 5, 5),
        ticker("D-USD", 4, 4), // out of order
    ];
    let books = [book("A-USD", Some("u1"), Some(17)), book("B-USD", None, None)];
    publish(pipeline, &tickers, &books).await;
}

async fn connect(pipeline: &Pipeline) -> MultiplexedConnection {
    let client = redis::Client::open(pipeline.context.config.redis.url.as_str()).expect("a url");
    client.get_multiplexed_async_connection().await.expect("redis")
}

async fn contents(cache: &mut MultiplexedConnection) -> Contents {
    let keys: Vec<String> = cache.keys("market_data:*").await.expect("keys");
    let mut contents = Contents::new();
    for key in keys {
        let fields = cache.hgetall(&key).await.expect("a hash");
        contents.insert(key, fields);
    }
    contents
}

async fn empty(cache: &mut MultiplexedConnection) {
    let _: () = redis::cmd("FLUSHDB").query_async(cache).await.expect("emptied");
}

fn key(symbol: &str) -> String {
    format!("market_data:ticker:TEST:{symbol}")
}

async fn last(cache: &MultiplexedConnection, symbol: &str) -> Option<String> {
    cache.clone().hget(key(symbol), "last").await.expect("redis")
}

fn request() -> Request {
    Request { wait: Duration::from_secs(60), ..Request::default() }
}

async fn rebuilt(pipeline: &Pipeline, request: &Request) -> rebuild::Report {
    rebuild::run(&pipeline.context.config, request).await.expect("rebuilt")
}

fn figures(report: &rebuild::Report) -> Vec<(Kind, u64, u64)> {
    let of = |kind| {
        let KindReport { written, held, expired, overtaken, .. } =
            report.kind(kind).expect("a kind of the cache");
        assert_eq!((*expired, *overtaken), (0, 0), "{report:?}");
        (kind, *written, *held)
    };
    KEYS.map(|(kind, _)| of(kind)).to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_lost_comes_back_from_the_database_field_by_field_and_nothing_newer_gives_way_invariant_6()
 {
    let pipeline = Pipeline::new("rebuilt").await;
    let mut cache = connect(&pipeline).await;
    let others = [StageName::Validate, StageName::Candles].map(|stage| pipeline.start(stage));
    let store = pipeline.start(StageName::Store);
    let stage = pipeline.start(StageName::Cache);
    publish_candles(&pipeline).await;
    publish_values(&pipeline).await;
    eventually("all is stored and shown", || async {
        let behind = lag(&pipeline.context, &[StageName::Cache], Micros(0)).await.expect("a lag");
        is_settled(&audited(&pipeline).await) && behind[0].records == 0
    })
    .await;
    // While the stage keeps them alive: no look at them may take longer than a value lives.
    let before = contents(&mut cache).await;
    stage.stop().await;
    assert_eq!(before.len() as u64, KEYS.iter().map(|(_, number)| number).sum::<u64>());
    for (symbol, number) in [("A-USD", "3"), ("B-USD", "1"), ("C-USD", "1"), ("D-USD", "5")] {
        assert_eq!(before[&key(symbol)]["last"], number, "{symbol}");
    }

    empty(&mut cache).await;
    age(&pipeline, SYMBOLS, 0).await;
    let written = KEYS.map(|(kind, number)| (kind, number, 0)).to_vec();
    let dry = Request { dry_run: true, ..request() };
    assert_eq!(figures(&rebuilt(&pipeline, &dry).await), written);
    assert!(contents(&mut cache).await.is_empty(), "it was only asked");
    assert_eq!(figures(&rebuilt(&pipeline, &request()).await), written);
    assert_eq!(contents(&mut cache).await, before);
    let report = audited(&pipeline).await;
    assert!(report.ok && examined(&report, "redis") == before.len() as i64, "{report:?}");
    let held = KEYS.map(|(kind, number)| (kind, 0, number)).to_vec();
    assert_eq!(figures(&rebuilt(&pipeline, &request()).await), held);
    age(&pipeline, SYMBOLS, 0).await;
    says_so_as_a_command(&pipeline);
    what_is_newer_stays(&pipeline, &mut cache).await;
    what_has_expired_is_left_out(&pipeline, &mut cache).await;

    // With the stage beside it, and behind a store that is not.
    let stage = pipeline.start(StageName::Cache);
    publish(&pipeline, &[ticker("A-USD", 9, 9)], &[]).await;
    eventually("the stage shows a new value", || async {
        last(&cache, "A-USD").await.as_deref() == Some("9")
    })
    .await;
    rebuilt(&pipeline, &request()).await;
    assert_eq!(last(&cache, "A-USD").await.as_deref(), Some("9"));
    store.stop().await;
    publish(&pipeline, &[ticker("A-USD", 10, 10)], &[]).await;
    eventually("the stage shows what is not stored", || async {
        last(&cache, "A-USD").await.as_deref() == Some("10")
    })
    .await;
    let now = Request { wait: Duration::ZERO, ..request() };
    let refused = rebuild::run(&pipeline.context.config, &now).await.expect_err("not stored yet");
    assert!(format!("{refused:#}").contains("the store has not taken all"), "{refused:#}");
    stage.stop().await;
    for other in others {
        other.stop().await;
    }
    pipeline.finish().await;
}

fn says_so_as_a_command(pipeline: &Pipeline) {
    let arguments = ["cache", "rebuild", "--dry-run", "--json", "--symbol", "TEST:A-USD,D-USD"];
    let mut command = pipeline.command(&arguments, |_| {});
    let output = command.stdout(Stdio::piped()).output().expect("runs");
    assert!(output.status.success(), "{output:?}");
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("json");
    let held: Vec<_> = (0..3).map(|kind| said["kinds"][kind]["held"].as_u64()).collect();
    assert_eq!(held, [Some(2), Some(1), Some(6)], "{said}");
    assert_eq!(said["dry_run"], true);
    let others = said["not_rebuilt"].as_array().expect("the other kinds");
    assert!(others.iter().any(|other| other["kind"] == "trade"), "{said}");
}

async fn what_is_newer_stays(pipeline: &Pipeline, cache: &mut MultiplexedConnection) {
    empty(cache).await;
    age(pipeline, SYMBOLS, 0).await;
    rebuilt(pipeline, &request()).await;
    // Of this incarnation of the topic, and of another one.
    let later = (DAY + 60 * SECOND).to_string();
    let newer = [("last", "90"), ("origin", "1000"), ("venue_time", later.as_str())];
    let _: () = cache.hset_multiple(key("A-USD"), &newer).await.expect("redis");
    let other = [("last", "91"), ("topic_id", "another"), ("venue_time", later.as_str())];
    let _: () = cache.hset_multiple(key("B-USD"), &other).await.expect("redis");
    let _: () = cache.del(key("D-USD")).await.expect("redis");
    let report = rebuilt(pipeline, &request()).await;
    let tickers = report.kind(Kind::Ticker).expect("tickers");
    assert_eq!((tickers.written, tickers.held), (1, 3), "{report:?}");
    for (symbol, number) in [("A-USD", "90"), ("B-USD", "91"), ("D-USD", "5")] {
        assert_eq!(last(cache, symbol).await.as_deref(), Some(number), "{symbol}");
    }
}

/// Makes the ledger say that the tickers and books of `symbols` were stored so long ago: no test waits for a value to expire, and
/// none fails because it took longer than a value lives.
async fn age<const N: usize>(pipeline: &Pipeline, symbols: [&str; N], seconds: i64) {
    let mut database = pipeline.database().await;
    for symbol in symbols {
        let partition = partition_for(format!("TEST:{symbol}").as_bytes(), 4);
        let age = format!(
            "update tapeline_ledger set written_at = now() - interval '{seconds} seconds'
             where (topic like '%.ticker' or topic like '%.book') and partition = {partition}"
        );
        database.execute(age.as_str()).await.expect("aged");
    }
}

async fn what_has_expired_is_left_out(pipeline: &Pipeline, cache: &mut MultiplexedConnection) {
    empty(cache).await;
    age(pipeline, ["C-USD", "D-USD"], 0).await;
    age(pipeline, ["A-USD"], 50).await;
    age(pipeline, ["B-USD"], 61).await;
    let report = rebuilt(pipeline, &request()).await;
    let tickers = report.kind(Kind::Ticker).expect("tickers");
    assert_eq!((tickers.written, tickers.expired), (3, 1), "{report:?}");
    assert_eq!(last(cache, "B-USD").await, None);
    let live: i64 = cache.pttl(key("A-USD")).await.expect("redis");
    assert!((1..=10_000).contains(&live), "{live} ms are left of a minute after 50 s");
}
