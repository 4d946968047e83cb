//! What tests against the real services share: a database of their own, events, batches.
#![allow(dead_code, unreachable_pub)]

use std::borrow::Cow;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{Connection, Executor, PgConnection, Row};
use tapeline_schemas::{
    Book, BookAction, Flags, Kind, Level, Micros, Record, Side, Ticker, Trade, wire,
};
use tapeline_stages::flow::{
    Batch, Batcher, Chunk, In, Marker, Outcome, Output, Position, QuarantineSink, Rejected, Sink,
    SinkError, Stage, TopicPartition,
};
use tapeline_stages::sinks::TopicIdentity;
use tapeline_stages::sinks::timescale::{MIGRATIONS, TimescaleSettings, TimescaleSink};
use tapeline_stages::store::{CopyBuffers, Store};

/// 2021-04-17T15:00:00Z
pub const NOON: i64 = 1_618_671_600_000_000;

static DATABASES: AtomicU32 = AtomicU32::new(0);

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn admin_url() -> String {
    setting("TAPELINE__DATABASE__URL", "postgres://tapeline:tapeline@127.0.0.1:15432/tapeline")
}

pub fn redis_url() -> String {
    setting("TAPELINE__REDIS__URL", "redis://127.0.0.1:16379/0")
}

/// A database of this test's own, with the migrations applied; dropped at the end.
pub struct Database {
    name: String,
    pub url: String,
}

impl Database {
    pub async fn new() -> Database {
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let name = format!("tapeline_test_{}_{number}", std::process::id());
        let template = setting("TAPELINE_DB_TEMPLATE", "tapeline_template");
        let mut admin = connect(&admin_url()).await;
        let sql = format!("create database {name} template {template}");
        admin.execute(sql.as_str()).await.expect("the template can be copied");
        let base = admin_url();
        let (server, _) = base.rsplit_once('/').expect("a url with a database");
        let url = format!("{server}/{name}");
        let mut own = connect(&url).await;
        MIGRATIONS.run(&mut own).await.expect("migrations apply");
        Database { name, url }
    }

    pub async fn connect(&self) -> PgConnection {
        connect(&self.url).await
    }

    /// The first column of the first row, as text.
    pub async fn text(&self, sql: &str) -> String {
        let mut own = self.connect().await;
        let row = own.fetch_one(sql).await.expect(sql);
        row.try_get::<String, _>(0).expect("a text")
    }

    pub async fn count(&self, table: &str) -> i64 {
        self.text(&format!("select count(*)::text from {table}")).await.parse().expect("a number")
    }

    /// Content of a table in the order of its columns, to compare.
    pub async fn md5(&self, table: &str) -> String {
        self.text(&format!(
            "select coalesce(md5(string_agg(t::text, ' ' order by t::text)), '') from (select * from {table}) t"
        ))
        .await
    }
}

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("PostgreSQL answers, see scripts/services")
}

impl Drop for Database {
    fn drop(&mut self) {
        let sql = format!("drop database {} with (force)", self.name);
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                connect(&admin_url()).await.execute(sql.as_str()).await.map(drop)
            })
        });
        dropping.join().expect("no panic").expect("the test's database can be dropped");
    }
}

/// Topics as the tests count them.
pub const TOPICS: [(Kind, &str); 8] = [
    (Kind::Trade, "md.trade"),
    (Kind::Ticker, "md.ticker"),
    (Kind::Book, "md.book"),
    (Kind::Candle, "md.candle"),
    (Kind::Anomaly, "md.anomaly"),
    (Kind::Gap, "md.gap"),
    (Kind::Option, "md.option"),
    (Kind::VenueCandle, "md.venue_candle"),
];

pub fn at(kind: Kind, partition: i32) -> TopicPartition {
    let topic = TOPICS.iter().position(|(other, _)| *other == kind).expect("a stored kind");
    TopicPartition { topic: topic as u16, partition }
}

pub fn settings(url: &str) -> TimescaleSettings {
    let topics =
        TOPICS.map(|(_, name)| TopicIdentity { name: name.to_owned(), id: "id-1".to_owned() });
    TimescaleSettings::new(url, "test", topics.to_vec())
}

pub fn sink(url: &str) -> TimescaleSink {
    TimescaleSink::new(settings(url)).expect("a valid address")
}

/// A stage that knows our own schemas under id 1.
pub fn taught<St: Stage>(mut stage: St) -> St {
    for (kind, _) in TOPICS {
        stage.learn(kind, 1, Some(kind.spec().schema));
    }
    stage
}

/// One record on its way to a stage.
pub struct Event {
    pub at: TopicPartition,
    pub offset: i64,
    pub kind: Kind,
    pub value: Vec<u8>,
    pub flags: Flags,
    pub marker: Option<Marker>,
}

pub fn event<'a>(kind: Kind, partition: i32, offset: i64, record: &impl Record<'a>) -> Event {
    let mut value = Vec::new();
    wire::put_header(1, &mut value);
    record.put(&mut value);
    Event { at: at(kind, partition), offset, kind, value, flags: Flags::NONE, marker: None }
}

/// Runs a stage over events, as the loop does; offset and origin are the same here.
pub fn gather<St: Stage>(stage: &mut St, events: &[Event]) -> Batch<St::Out>
where
    St::Out: Output,
{
    let mut batcher = Batcher::default();
    for event in events {
        let mut chunk = Chunk::new(event.at);
        let headers = [("tl-rules", Some(&b"7"[..]))];
        chunk.push(event.offset, Micros(NOON), Some(b"K"), Some(&event.value), headers.into_iter());
        let input = In {
            record: chunk.record(0),
            kind: event.kind,
            origin: event.offset,
            origin_first: event.offset,
            flags: event.flags,
            marker: event.marker,
        };
        let outcome = stage.apply(&input, batcher.out()).expect("a sound record");
        let event_time = if outcome == Outcome::Taken { stage.event_time() } else { None };
        let position = Position {
            at: event.at,
            offset: event.offset,
            origin_first: event.offset,
            origin: event.offset,
            event_time,
        };
        batcher.push(position, outcome);
    }
    batcher.take()
}

/// Writes events as one batch; what the spans say then.
pub async fn store(
    sink: &mut TimescaleSink,
    events: &[Event],
) -> Result<Vec<tapeline_stages::flow::Span>, SinkError> {
    let batch = gather(&mut taught(Store::new()), events);
    let mut spans = batch.spans().to_vec();
    sink.write(batch.out(), &mut spans).await?;
    Ok(spans)
}

pub fn store_batch(events: &[Event]) -> Batch<CopyBuffers> {
    gather(&mut taught(Store::new()), events)
}

/// A quarantine that keeps what it is given.
#[derive(Default)]
pub struct Kept(pub Vec<Rejected>);

impl QuarantineSink for Kept {
    async fn write(&mut self, rejected: &[Rejected]) -> Result<(), SinkError> {
        self.0.extend_from_slice(rejected);
        Ok(())
    }
}

pub fn trade(symbol: &str, id: i64, price: &str) -> Trade<'static> {
    Trade {
        exchange: Cow::Borrowed("KRAKEN"),
        symbol: Cow::Owned(symbol.to_owned()),
        trade_id: Cow::Owned(id.to_string()),
        price: price.parse().expect("a price"),
        amount: "0.5".parse().expect("an amount"),
        side: Side::Buy,
        kind: Some(Cow::Borrowed("limit")),
        taker_or_maker: None,
        sequence: Some(id),
        venue_time: Micros(NOON + id * 1_000),
        receive_time: Micros(NOON + id * 1_000 + 7),
    }
}

/// Trades of partition 0 with the offsets `first..last`.
pub fn trades(first: i64, last: i64) -> Vec<Event> {
    (first..last)
        .map(|id| event(Kind::Trade, 0, id, &trade(&format!("C{}-USD", id % 7), id, "12.5")))
        .collect()
}

pub fn ticker(symbol: &str, last: &str, time: i64) -> Ticker<'static> {
    Ticker {
        exchange: Cow::Borrowed("KRAKEN"),
        symbol: Cow::Owned(symbol.to_owned()),
        event_id: None,
        last: Some(last.parse().expect("a price")),
        bid: None,
        bid_volume: None,
        ask: None,
        ask_volume: None,
        volume_24h: None,
        quote_volume_24h: None,
        price_change_24h: None,
        price_change_percent_24h: Some("-1.25".parse().expect("a number")),
        venue_time: Micros(time),
        receive_time: Micros(time + 7),
    }
}

pub fn book(symbol: &str, action: BookAction, time: i64) -> Book<'static> {
    let level = |price: &str| Level {
        price: price.parse().expect("a price"),
        amount: "0.000000000000000001".parse().expect("an amount"),
    };
    Book {
        exchange: Cow::Borrowed("KRAKEN"),
        symbol: Cow::Owned(symbol.to_owned()),
        action,
        event_id: None,
        bids: vec![level("10.5"), level("10")],
        asks: Vec::new(),
        first_sequence: None,
        sequence: Some(3),
        checksum: None,
        venue_time: Micros(time),
        receive_time: Micros(time + 7),
    }
}
