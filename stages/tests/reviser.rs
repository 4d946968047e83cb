//! The reviser against a real database (invariants 7 and 10).

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{Connection, Executor, PgConnection, PgPool, Row};
use tapeline_schemas::{Candle, Record};
use tapeline_stages::candle::*;
use tapeline_stages::flow::*;

/// 2021-04-17T15:00:00Z.
const HOUR: i64 = 1_618_671_600_000_000;
const MINUTE: i64 = 60_000_000;

static DATABASES: AtomicU32 = AtomicU32::new(0);

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn admin_url() -> String {
    setting("TAPELINE__DATABASE__URL", "postgres://tapeline:tapeline@127.0.0.1:15432/tapeline")
}

/// A database of the test's own; dropped at the end.
struct Database {
    name: String,
    pool: PgPool,
}

impl Database {
    async fn new() -> Database {
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let name = format!("tapeline_reviser_{}_{number}", std::process::id());
        let template = setting("TAPELINE_DB_TEMPLATE", "tapeline_template");
        let mut admin = PgConnection::connect(&admin_url()).await.expect("see scripts/services");
        let sql = format!("create database {name} template {template}");
        admin.execute(sql.as_str()).await.expect("the template can be copied");
        let url = admin_url();
        let (server, _) = url.rsplit_once('/').expect("a url with a database");
        let pool = PgPool::connect(&format!("{server}/{name}")).await.expect("connects");
        sqlx::migrate!("../sql").run(&pool).await.expect("migrations apply");
        Database { name, pool }
    }

    async fn run(&self, sql: &str) {
        self.pool.execute(sql).await.expect(sql);
    }

    /// Rows as text, columns parted by a blank.
    async fn rows(&self, sql: &str) -> Vec<String> {
        let sql = format!("select translate(t::text, ',()', ' ') from ({sql}) t");
        let rows = self.pool.fetch_all(sql.as_str()).await.expect("answers");
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Candles: timeframe, minutes after the hour, figures, number of trades, version.
    async fn candles(&self) -> Vec<String> {
        self.rows(
            "select timeframe, extract(minute from time)::int, open, high, low, close, volume, \
             quote_volume, trades_count, final, revision from market_data_ohlcv order by 1, 2",
        )
        .await
    }

    /// A trade at `seconds` after the hour; id, origin and sequence are given.
    async fn trade(&self, seconds: i64, id: i64, sequence: &str, price: &str, amount: &str) {
        self.run(&format!(
            "insert into market_data_trades values (timestamptz '2021-04-17 15:00Z' + \
             interval '{seconds} seconds', 'KRAKEN', 'BTC-CHF', '{id}', {price}, {amount}, 'buy', \
             null, null, {sequence}, '2021-04-17 15:59Z', 0, {id})"
        ))
        .await;
    }

    async fn fence(&self, topic: &str, next_offset: i64) {
        self.run(&format!(
            "insert into tapeline_fence (pipeline, topic, partition, topic_id, next_offset) \
             values ('live', '{topic}', 0, 'id', {next_offset}) \
             on conflict (pipeline, topic, partition) do update set next_offset = {next_offset}"
        ))
        .await;
    }

    async fn gap(&self, from: &str, to: &str, state: &str) {
        self.run(&format!(
            "insert into market_data_gaps values ('KRAKEN', 'BTC-CHF', 'trade', \
             '2021-04-17 {from}Z', '2021-04-17 {to}Z', '{state}', 'disconnect', null, 't', 0, 1) \
             on conflict (exchange, symbol, channel, from_time) do update set state = '{state}'"
        ))
        .await;
    }

    fn reviser(&self) -> Reviser {
        Reviser::new(self.pool.clone(), "live")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sql = format!("drop database {} with (force)", self.name);
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                PgConnection::connect(&admin_url()).await?.execute(sql.as_str()).await.map(drop)
            })
        });
        dropping.join().expect("no panic").expect("the test's database can be dropped");
    }
}

fn dirty(timeframe: &str, minutes: std::ops::Range<i64>, topic: &str, offset: i64) -> Dirty {
    Dirty {
        exchange: "KRAKEN".to_owned(),
        symbol: "BTC-CHF".to_owned(),
        timeframe: timeframe.to_owned(),
        from: HOUR + minutes.start * MINUTE,
        to: HOUR + minutes.end * MINUTE,
        topic: topic.to_owned(),
        partition: 0,
        offset,
        filled_from: None,
    }
}

/// A batch of dirty records through stage and sink, as the loop does it.
async fn write(reviser: &mut Reviser, list: &[Dirty]) -> Result<(), SinkError> {
    let at = TopicPartition { topic: 0, partition: 0 };
    let mut out = Dirties::default();
    for dirty in list {
        let mut chunk = Chunk::new(at);
        let value = dirty.to_message(0).value;
        chunk.push(0, tapeline_schemas::Micros(0), None, value.as_deref(), std::iter::empty());
        let input = In {
            record: chunk.record(0),
            kind: tapeline_schemas::Kind::Candle,
            origin: 0,
            origin_first: 0,
            flags: tapeline_schemas::Flags::NONE,
            marker: None,
        };
        DirtyStage.apply(&input, &mut out).expect("readable");
    }
    reviser.write(&out, &mut []).await
}

#[tokio::test]
async fn a_late_trade_is_waited_for_and_then_counts_to_the_last_digit() {
    let db = Database::new().await;
    let (high, tiny) = ("99999999999.123456789012345678", "0.000000000000000001");
    db.trade(10, 3, "null", high, tiny).await;
    db.trade(10, 1, "7", "5.5", "2").await;
    db.trade(10, 2, "null", "6.25", "1").await;
    db.trade(60, 9, "null", "1", "1").await;
    let late = dirty("1m", 0..1, "md.trade", 41);
    let mut reviser = db.reviser();
    for fence in [None, Some(41)] {
        if let Some(next) = fence {
            db.fence("md.trade", next).await;
        }
        let waits = write(&mut reviser, std::slice::from_ref(&late)).await;
        assert!(matches!(waits, Err(SinkError::NotYet(_))), "{waits:?}");
        assert_eq!(db.candles().await, Vec::<String>::new());
    }
    db.fence("md.trade", 42).await;
    // The one that waits does not hold up the other.
    let other = dirty("1m", 1..2, "md.trade", 42);
    let waits = write(&mut reviser, &[other, late.clone(), late.clone()]).await;
    assert!(matches!(waits, Err(SinkError::NotYet(_))));
    // By (time, sequence or 0, origin): 2, then 3, then 1.
    let expected = format!(
        "1m 0 6.25 {high} 5.5 5.5 3.000000000000000001 \
         17.250000099999999999123456789012345678 3 t 1"
    );
    assert_eq!(db.candles().await, std::slice::from_ref(&expected));
    write(&mut reviser, &[late]).await.expect("again, harmless");
    assert_eq!(db.candles().await, [expected]);
    assert_eq!(
        db.rows("select key, revision from tapeline_candle_outbox").await,
        ["KRAKEN:BTC-CHF 1"]
    );
}

#[tokio::test]
async fn a_stored_candle_gets_its_next_revision_only_if_it_is_wrong() {
    let db = Database::new().await;
    db.trade(10, 1, "null", "5", "2").await;
    db.fence("md.trade", 10).await;
    let late = dirty("1m", 0..1, "md.trade", 1);
    assert_eq!(db.reviser().revise(&late).await.expect("stored"), 1);
    db.run("update market_data_ohlcv set revision = 0").await;
    assert_eq!(db.reviser().revise(&late).await.expect("stored"), 0);
    db.trade(20, 2, "null", "4", "1").await;
    // Two revisers at once, as while a partition changes hands.
    let (one, two) = (db.reviser(), db.reviser());
    let (one, two) = tokio::join!(one.revise(&late), two.revise(&late));
    assert_eq!(one.expect("stored") + two.expect("stored"), 1);
    assert_eq!(db.candles().await, ["1m 0 5 5 4 4 3 14 2 t 1"]);
}

#[tokio::test]
async fn a_window_whose_trades_are_in_the_archive_stays_as_it_is_until_they_are_restored_invariant_7()
 {
    let db = Database::new().await;
    db.trade(10, 1, "null", "5", "2").await;
    db.fence("md.trade", 10).await;
    let late = dirty("1m", 0..1, "md.trade", 1);
    assert_eq!(db.reviser().revise(&late).await.expect("stored"), 1);
    let before = db.candles().await;
    db.run(
        "with gone as (delete from market_data_trades returning time)
         insert into tapeline_removals (pipeline, table_name, day, rows, reason)
         select 'main', 'market_data_trades', (time at time zone 'UTC')::date, 1, 'lifecycle' from gone",
    )
    .await;
    db.trade(20, 2, "null", "4", "1").await;
    assert_eq!(db.reviser().revise(&late).await.expect("left alone"), 0);
    assert_eq!(db.candles().await, before);
    db.trade(10, 1, "null", "5", "2").await;
    db.run("insert into tapeline_restores select table_name, day, rows from tapeline_removals")
        .await;
    assert_eq!(db.reviser().revise(&late).await.expect("computed again"), 1);
    assert_eq!(db.candles().await, ["1m 0 5 5 4 4 3 14 2 t 2"]);
}

#[tokio::test]
async fn a_filled_hole_makes_its_candles_final_once_the_store_knows_it() {
    let db = Database::new().await;
    for (seconds, id) in [(10, 1), (70, 2), (190, 3), (250, 4)] {
        db.trade(seconds, id, "null", "5", "1").await;
    }
    db.fence("md.trade", 10).await;
    db.fence("md.candle", 10).await;
    db.gap("15:01:30", "15:03:20", "ended").await;
    for minute in [0, 1, 3, 4] {
        let range = minute..minute + 1;
        db.reviser().revise(&dirty("1m", range, "md.trade", 1)).await.expect("stored");
    }
    db.reviser().revise(&dirty("5m", 0..5, "md.candle", 1)).await.expect("stored");
    let versions = "select timeframe, extract(minute from time)::int, final, revision, \
                    trades_count from market_data_ohlcv order by 1, 2";
    let before = ["1m 0 t 1 1", "1m 1 f 1 1", "1m 3 f 1 1", "1m 4 t 1 1", "5m 0 f 1 4"];
    assert_eq!(db.rows(versions).await, before);

    db.trade(130, 5, "null", "9", "1").await;
    let filled_from = Some(HOUR + 90_000_000);
    let minutes = Dirty { filled_from, ..dirty("1m", 1..4, "md.trade", 2) };
    let longer = Dirty { filled_from, ..dirty("5m", 0..5, "md.candle", 2) };
    let early = db.reviser().revise(&minutes).await;
    assert!(matches!(early, Err(ReviseError::NotYet(_))), "{early:?}");
    db.gap("15:01:30", "15:03:20", "filled").await;
    assert_eq!(db.reviser().revise(&minutes).await.expect("stored"), 3);
    assert_eq!(db.reviser().revise(&longer).await.expect("stored"), 1);
    let after =
        ["1m 0 t 1 1", "1m 1 t 2 1", "1m 2 t 1 1", "1m 3 t 2 1", "1m 4 t 1 1", "5m 0 t 2 5"];
    assert_eq!(db.rows(versions).await, after);
}

/// Keeps what it is given, or refuses it.
#[derive(Default)]
struct Kept {
    candles: Vec<Outgoing>,
    refuses: bool,
}

impl Publish for Kept {
    async fn publish(&mut self, candles: &[Outgoing]) -> Result<(), String> {
        if self.refuses {
            return Err("no broker".to_owned());
        }
        self.candles.extend_from_slice(candles);
        Ok(())
    }
}

#[tokio::test]
async fn revised_candles_leave_in_order_and_stay_until_they_are_delivered() {
    let db = Database::new().await;
    db.fence("md.trade", 10).await;
    for (seconds, id) in [(10, 1), (20, 2), (70, 3)] {
        db.trade(seconds, id, "null", "5", "1").await;
        let minute = seconds / 60;
        let late = dirty("1m", minute..minute + 1, "md.trade", 1);
        assert_eq!(db.reviser().revise(&late).await.expect("stored"), 1);
    }
    let mut conn = db.pool.acquire().await.expect("connects");
    let mut kept = Kept { refuses: true, ..Kept::default() };
    let refused = publish_outbox(&mut conn, &mut kept).await;
    assert!(matches!(refused, Err(OutboxError::Publish(_))));

    // Another publisher is at work.
    let mut other = db.pool.begin().await.expect("begins");
    other
        .execute("select pg_advisory_xact_lock('tapeline_candle_outbox'::regclass::bigint)")
        .await
        .expect("free");
    kept.refuses = false;
    assert_eq!(publish_outbox(&mut conn, &mut kept).await.expect("answers"), 0);
    other.rollback().await.expect("rolls back");

    assert_eq!(publish_outbox(&mut conn, &mut kept).await.expect("answers"), 3);
    assert_eq!(publish_outbox(&mut conn, &mut kept).await.expect("answers"), 0);
    let seen: Vec<_> = kept
        .candles
        .iter()
        .map(|outgoing| {
            let candle = Candle::decode(&outgoing.value).expect("ours");
            let minute = (candle.open_time.0 - HOUR) / MINUTE;
            (outgoing.key.as_str(), minute, candle.revision, candle.trades_count, candle.is_final)
        })
        .collect();
    let key = "KRAKEN:BTC-CHF";
    assert_eq!(seen, [(key, 0, 1, 1, true), (key, 0, 2, 2, true), (key, 1, 1, 1, true)]);
}
