//! How fast rows go through the store stage and its sink, against one `psql \copy` of the same
//! rows into the same table (issue 5). `cargo run --release --example store_speed [rows]`.
//!
//! Works in a database of its own, made from `TAPELINE_DB_TEMPLATE`.

#[path = "../tests/common/mod.rs"]
mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{Database, Event, at, event, sink, taught};
use sqlx::Executor;
use tapeline_schemas::{Kind, Micros, Trade};
use tapeline_stages::flow::{Batcher, Chunk, In, Outcome, Position, Sink, Stage};
use tapeline_stages::store::{CopyBuffers, Store};

const BATCH_ROWS: usize = 20_000;
const SYMBOLS: i64 = 200;
const ROUNDS: usize = 5;

/// Trades of many symbols, skewed as markets are: offsets of a partition in order.
fn tape(partition: i32, rows: i64, fresh: i64) -> Vec<Event> {
    let mut state = 7_u64 + partition as u64;
    let make = |id: i64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let random = (state >> 33) as i64;
        let symbol = (random % SYMBOLS) * (random / SYMBOLS % SYMBOLS) / SYMBOLS;
        let price = format!("{}.{:02}", 100 * symbol + random % 90 + 1, random % 100);
        let identity = if id % 100 < fresh { id } else { id - id % 100 };
        event(
            Kind::Trade,
            partition,
            id,
            &Trade {
                venue_time: Micros(common::NOON + identity * 1_000),
                trade_id: (100_000_000 + identity).to_string().into(),
                ..common::trade(
                    &format!("S{partition}X{}-USD", if fresh < 100 { 0 } else { symbol }),
                    id,
                    &price,
                )
            },
        )
    };
    (0..rows).map(make).collect()
}

fn chunks(events: &[Event]) -> Vec<Chunk> {
    let chunk = |events: &[Event]| {
        let mut chunk = Chunk::new(events[0].at);
        for event in events {
            let origin = event.offset.to_string();
            let headers = [("tl-origin", Some(origin.as_bytes())), ("tl-rules", Some(&b"1"[..]))];
            chunk.push(
                event.offset,
                Micros(0),
                Some(b"KRAKEN:BTC-USD"),
                Some(&event.value),
                headers.into_iter(),
            );
        }
        chunk
    };
    events.chunks(BATCH_ROWS).map(chunk).collect()
}

/// Runs one lane to its end; the time spent in the stage alone.
async fn lane(url: String, partition: i32, chunks: &[Chunk]) -> Duration {
    let mut sink = sink(&url);
    let mut stage = taught(Store::new());
    sink.assign(&[at(Kind::Trade, partition)]).await.expect("assigned");
    let mut in_stage = Duration::ZERO;
    for chunk in chunks {
        let began = Instant::now();
        let mut batcher = Batcher::<CopyBuffers>::default();
        for index in 0..chunk.len() {
            let record = chunk.record(index);
            let flags = tapeline_schemas::Flags::NONE;
            let origin = record.headers.number("tl-origin").unwrap_or_default();
            let input =
                In { record, kind: Kind::Trade, origin, origin_first: origin, flags, marker: None };
            let outcome = stage.apply(&input, batcher.out()).expect("sound");
            let (at, offset) = (record.at, record.offset);
            let event_time = stage.event_time();
            batcher
                .push(Position { at, offset, origin_first: origin, origin, event_time }, outcome);
        }
        in_stage += began.elapsed();
        let batch = batcher.take();
        let mut spans = batch.spans().to_vec();
        sink.write(batch.out(), &mut spans).await.expect("written");
        debug_assert!(spans[0].count(Outcome::Taken) > 0);
    }
    in_stage
}

async fn empty(database: &Database) {
    let mut own = database.connect().await;
    own.execute("truncate market_data_trades").await.expect("emptied");
    own.execute("truncate tapeline_fence, tapeline_ledger").await.expect("emptied");
}

fn psql(url: &str, command: &str) {
    let done =
        Command::new("psql").args(["-q", "-v", "ON_ERROR_STOP=1", url, "-c", command]).status();
    assert!(done.expect("psql runs").success());
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

#[tokio::main]
async fn main() {
    let rows: i64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(600_000);
    let database = Database::new().await;
    let one = chunks(&tape(0, rows, 100));
    let halves = [chunks(&tape(0, rows / 2, 100)), chunks(&tape(1, rows / 2, 100))];
    let repeated = chunks(&tape(0, rows, 50));
    let file = std::env::temp_dir().join(format!("store_speed_{}", std::process::id()));
    let file = file.to_str().expect("a path in UTF-8");
    lane(database.url.clone(), 0, &one).await;
    let order = "order by origin";
    psql(
        &database.url,
        &format!(
            "\\copy (select * from market_data_trades {order}) to '{file}' with (format binary)"
        ),
    );
    let mut rates: [Vec<f64>; 4] = Default::default();
    let per_second = |began: Instant| rows as f64 / began.elapsed().as_secs_f64();
    for round in 0..ROUNDS {
        empty(&database).await;
        let began = Instant::now();
        psql(
            &database.url,
            &format!("\\copy market_data_trades from '{file}' with (format binary)"),
        );
        rates[0].push(per_second(began));
        empty(&database).await;
        let began = Instant::now();
        let in_stage = lane(database.url.clone(), 0, &one).await;
        rates[1].push(per_second(began));
        empty(&database).await;
        let began = Instant::now();
        tokio::join!(
            lane(database.url.clone(), 0, &halves[0]),
            lane(database.url.clone(), 1, &halves[1])
        );
        rates[2].push(per_second(began));
        empty(&database).await;
        let began = Instant::now();
        lane(database.url.clone(), 0, &repeated).await;
        rates[3].push(per_second(began));
        let latest: Vec<u64> = rates.iter().map(|rates| rates[round] as u64).collect();
        println!("round {round}: {latest:?} rows/s; stage alone {in_stage:?}");
    }
    let [limit, store, two, repeated] = rates.map(median);
    println!(
        "limit {limit:.0}; store {store:.0} ({:.2}); two lanes {two:.0} ({:.2}); half repeated {repeated:.0} ({:.2} of store)",
        store / limit,
        two / limit,
        repeated / store
    );
    std::fs::remove_file(file).expect("removed");
}
