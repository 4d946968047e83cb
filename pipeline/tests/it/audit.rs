//! The audit finds nothing wrong where nothing is, and names what was tampered with.

use std::process::{Command, Output};
use std::time::Duration;

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use sqlx::{Executor as _, PgConnection};
use tapeline::audit::{self, Report};
use tapeline::wiring::StageName;
use tapeline_schemas::{Book, BookAction, Control, Kind, Level, Micros, Money, Ticker, encode};

use crate::common::{Pipeline, eventually};
use crate::look::{self, Plain, audited, examined, is_settled, trade};

const MINUTE: i64 = 60_000_000;
/// 2021-04-17T00:00:00Z, a day's start.
const DAY: i64 = 1_618_617_600_000_000;
const SYMBOLS: [&str; 2] = ["A-USD", "B-USD"];

async fn publish_trades(pipeline: &Pipeline, minutes: std::ops::Range<i64>) {
    let trades: Vec<_> = minutes
        .flat_map(|minute| (0..4).map(move |of| (minute, of)))
        .flat_map(|(minute, of)| SYMBOLS.map(|symbol| (minute, of, symbol)))
        .map(|(minute, of, symbol)| {
            let id = minute * 4 + of;
            let price = format!("{}.{id:06}", 100 + of);
            trade("TEST", symbol, id, &price, DAY + minute * MINUTE + of * 14_000_000)
        })
        .collect();
    look::publish(pipeline, &trades).await;
}

async fn complete(pipeline: &Pipeline, through: i64) {
    let publisher = pipeline.context.publisher().expect("publisher");
    let through = Control::Complete { venue: "TEST".to_owned(), through: Micros(through) };
    publisher.broadcast(Kind::Trade, &through).await.expect("control");
    publisher.delivered().await.expect("delivered");
}

/// A ticker and a book, whose values live for a minute in Redis.
async fn publish_values(pipeline: &Pipeline, number: i64) {
    let publisher = pipeline.context.publisher().expect("publisher");
    let time = Micros(DAY + number * 1_000_000);
    let ticker = Ticker {
        exchange: "TEST".into(),
        symbol: "A-USD".into(),
        event_id: Some(number.to_string().into()),
        last: Some(Money::ONE),
        bid: None,
        bid_volume: None,
        ask: None,
        ask_volume: None,
        volume_24h: None,
        quote_volume_24h: None,
        price_change_24h: None,
        price_change_percent_24h: None,
        venue_time: time,
        receive_time: time,
    };
    publisher.event(Kind::Ticker, "TEST:A-USD", &encode(&ticker)).await.expect("published");
    let level =
        |price: &str| vec![Level { price: price.parse().expect("price"), amount: Money::ONE }];
    let book = Book {
        exchange: "TEST".into(),
        symbol: "B-USD".into(),
        action: BookAction::Top,
        event_id: Some(number.to_string().into()),
        bids: level("99"),
        asks: level("100"),
        first_sequence: None,
        sequence: Some(number),
        checksum: None,
        venue_time: time,
        receive_time: time,
    };
    publisher.event(Kind::Book, "TEST:B-USD", &encode(&book)).await.expect("published");
    publisher.delivered().await.expect("delivered");
}

/// The audit must name, in the check of this name, an offence that says `words`.
async fn names(pipeline: &Pipeline, check: &str, words: &str) {
    let report = audited(pipeline).await;
    assert!(!report.ok, "{check}: nothing was found");
    let found = report.checks.iter().find(|of| of.name == check).expect("a check of this name");
    let offence = found.first_offence.as_deref().unwrap_or("nothing");
    assert!(offence.contains(words), "{check} says `{offence}`, expected `{words}`: {report:?}");
}

async fn is_clean(pipeline: &Pipeline, after: &str) {
    let report = audited(pipeline).await;
    assert!(report.ok, "after {after}: {report:?}");
}

/// The command, in a process of its own.
fn command(pipeline: &Pipeline, change: impl FnOnce(&mut serde_json::Value)) -> Output {
    let id = &pipeline.context.config.pipeline.id;
    let path = std::env::temp_dir().join(format!("{id}.audit.json"));
    let mut config = serde_json::to_value(&*pipeline.context.config).expect("config");
    change(&mut config);
    std::fs::write(&path, config.to_string()).expect("written");
    Command::new(env!("CARGO_BIN_EXE_tapeline"))
        .args(["--config", path.to_str().expect("utf-8"), "audit", "--json"])
        .env_remove("TAPELINE__DATABASE__URL")
        .env_remove("TAPELINE__REDIS__URL")
        .env_remove("TAPELINE__REGISTRY__URL")
        .output()
        .expect("the binary starts")
}

/// A whole pipeline with everything in it that the audit looks at.
async fn filled() -> Pipeline {
    let pipeline = Pipeline::new("audit").await;
    publish_trades(&pipeline, 0..8).await;
    complete(&pipeline, DAY + 24 * 60 * MINUTE).await;
    publish_trades(&pipeline, 3..4).await; // duplicates
    let raw = look::raw_topic(&pipeline, Kind::Trade);
    let garbage = Plain { value: Some(b"no avro".to_vec()), ..Plain::default() };
    look::push(&pipeline, &[(raw, garbage)]).await;
    publish_values(&pipeline, 0).await;
    pipeline
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_is_clean_at_rest_and_under_load_and_names_whatever_was_tampered_with() {
    let pipeline = filled().await;
    let stages = [StageName::Validate, StageName::Store, StageName::Cache, StageName::Candles]
        .map(|stage| pipeline.start(stage));
    // The cut: at no moment is what is on its way called wrong.
    let mut minute = 10_000;
    eventually("audits under load", || {
        minute += 1;
        let (pipeline, minute) = (&pipeline, minute);
        async move {
            publish_trades(pipeline, minute..minute + 1).await;
            is_clean(pipeline, "new trades").await;
            minute >= 10_008
        }
    })
    .await;
    complete(&pipeline, DAY + 20_000 * MINUTE).await;
    // Late ones, for the reviser.
    let late = trade("TEST", "A-USD", 99_999, "77.7", DAY + 2 * MINUTE + 1);
    look::publish(&pipeline, &[late]).await;
    eventually("everything is settled", || async {
        let report = audited(&pipeline).await;
        assert!(report.ok, "{report:?}");
        is_settled(&report) && examined(&report, "candles") >= 50
    })
    .await;
    let report = audited(&pipeline).await;
    assert_eq!(examined(&report, "outcomes"), 1, "one is in quarantine: {report:?}");
    tampered_redis(&pipeline).await;
    for stage in stages {
        stage.stop().await;
    }
    tampered_database(&pipeline).await;
    folded(&pipeline).await;
    let output = command(&pipeline, |_| {});
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("json");
    assert_eq!(report["ok"], true);
    assert_eq!(report["checks"][0]["name"], "raw_to_checked");
    let absent = command(&pipeline, |config| {
        config["database"]["url"] = "postgres://127.0.0.1:1/absent".into();
    });
    assert_eq!(absent.status.code(), Some(2), "{}", String::from_utf8_lossy(&absent.stderr));
    pipeline.finish().await;
}

/// Folding changes nothing that the audit says.
async fn folded(pipeline: &Pipeline) {
    let without_time = |mut report: Report| {
        report.cut.taken_at.clear();
        serde_json::to_value(report).expect("json")
    };
    let before = without_time(audited(pipeline).await);
    let rows = "select count(*) from tapeline_ledger";
    let (many, config) = (pipeline.count(rows).await, &pipeline.context.config);
    let fold = || audit::fold(&config.database.url, &config.pipeline.id, Duration::ZERO);
    let folded = fold().await.expect("folded");
    let few = pipeline.count(rows).await;
    assert!(folded.into > 0 && few < many, "{folded:?}, {many} before, {few} after");
    assert_eq!(few, many - folded.rows as i64 + folded.into as i64);
    assert_eq!(without_time(audited(pipeline).await), before);
    // A row that does not add up stays as it is, and is named as before.
    let wrong = "update tapeline_ledger set stored = stored + 1 where id = (select max(id) from \
                 tapeline_ledger where topic like '%.trade')";
    pipeline.database().await.execute(wrong).await.expect("tampered");
    let before = without_time(audited(pipeline).await);
    assert_eq!(before["ok"], false);
    fold().await.expect("folded");
    assert_eq!(without_time(audited(pipeline).await), before);
    let right = wrong.replace("stored + 1", "stored - 1");
    pipeline.database().await.execute(right.as_str()).await.expect("repaired");
}

async fn tampered_redis(pipeline: &Pipeline) {
    let client = redis::Client::open(pipeline.context.config.redis.url.as_str()).expect("url");
    let mut cache: MultiplexedConnection =
        client.get_multiplexed_async_connection().await.expect("redis");
    let key = "market_data:ticker:TEST:A-USD";
    publish_values(pipeline, 1).await;
    let shown = || async {
        let origin: Option<i64> = cache.clone().hget(key, "origin").await.expect("redis");
        origin == Some(1)
    };
    eventually("the new value is shown", shown).await;
    eventually("and committed", || async {
        let report = audited(pipeline).await;
        is_settled(&report) && examined(&report, "redis") >= 2
    })
    .await;
    let _: () = cache.hset(key, "last", "2").await.expect("redis");
    names(pipeline, "redis", &format!("{key} has last 2, its record says 1")).await;
    let _: () = cache.hset(key, "last", "1").await.expect("redis");
    is_clean(pipeline, "the value is put back").await;
    let _: () = cache.persist(key).await.expect("redis");
    names(pipeline, "redis", &format!("{key} does not expire")).await;
    let _: () = cache.expire(key, 3_000).await.expect("redis");
    names(pipeline, "redis", &format!("{key} lives for")).await;
    let _: () = cache.expire(key, 60).await.expect("redis");
    // An older value: true, and overtaken.
    for (field, value) in [("origin", "0"), ("event_id", "0")] {
        let _: () = cache.hset(key, field, value).await.expect("redis");
    }
    for field in ["venue_time", "receive_time"] {
        let _: () = cache.hset(key, field, DAY).await.expect("redis");
    }
    names(pipeline, "redis", &format!("{key} is of origin 0, the cache has taken the newer 1"))
        .await;
    let _: () = cache.hset(key, "origin", "7000").await.expect("redis");
    names(pipeline, "redis", &format!("{key}: no ticker of partition")).await;
    let _: () = cache.del(key).await.expect("redis");
    is_clean(pipeline, "the value is gone").await;
}

/// What is done to the database, how it is undone, and what the audit must say in between.
async fn tamper(
    pipeline: &Pipeline,
    database: &mut PgConnection,
    (change, undo): (&str, &str),
    (check, words): (&str, &str),
) {
    database.execute(change).await.expect(change);
    names(pipeline, check, words).await;
    database.execute(undo).await.expect(undo);
    is_clean(pipeline, undo).await;
}

async fn tampered_database(pipeline: &Pipeline) {
    let mut database = pipeline.database().await;
    let of = |table: &str, filter: &str| {
        let change = format!(
            "create temp table kept as select * from {table} where {filter}; \
             delete from {table} where {filter}"
        );
        let undo = format!(
            "insert into {table} overriding system value select * from kept; drop table kept"
        );
        (change, undo)
    };
    let (change, undo) =
        of("market_data_trades", "symbol = 'B-USD' and trade_id = '5' and exchange = 'TEST'");
    let expected =
        ("ledger_to_tables", "market_data_trades holds 64 rows of 2021-04-17, the ledger added 65");
    tamper(pipeline, &mut database, (&change, &undo), expected).await;
    let add = "insert into market_data_ticker (time, exchange, symbol, event_id, receive_time, \
               origin_partition, origin) values ('2021-04-18', 'X', 'Y', 'Z', '2021-04-18', 0, 0)";
    let expected = ("ledger_to_tables", "market_data_ticker holds 1 rows of 2021-04-18");
    let undo = "delete from market_data_ticker where exchange = 'X'";
    tamper(pipeline, &mut database, (add, undo), expected).await;
    let price = |sign: &str| {
        format!(
            "update market_data_trades set price = price {sign} 1 where symbol = 'A-USD' and trade_id = '4'"
        )
    };
    let expected = (
        "candles",
        "TEST:A-USD 1m of 2021-04-17T00:01:00.000000Z: open 100.000004, should be 101.000004",
    );
    tamper(pipeline, &mut database, (&price("+"), &price("-")), expected).await;
    let volume = |sign: &str| {
        format!(
            "update market_data_ohlcv set volume = volume {sign} 0.000000000000000001 \
             where symbol = 'B-USD' and timeframe = '1h' and time = '2021-04-17'"
        )
    };
    let expected = (
        "candles",
        "TEST:B-USD 1h of 2021-04-17T00:00:00.000000Z: volume 32.000000000000000001, should be 32",
    );
    tamper(pipeline, &mut database, (&volume("+"), &volume("-")), expected).await;
    tampered_ledger(pipeline, &mut database).await;
}

async fn tampered_ledger(pipeline: &Pipeline, database: &mut PgConnection) {
    // A row in the middle of the partition that has most of them.
    let sql = "select l.id, l.topic, l.partition, l.first_origin, l.last_origin from tapeline_ledger l \
               join (select topic, partition, count(*) from tapeline_ledger where topic like '%.trade' \
               group by 1, 2 order by 3 desc limit 1) most using (topic, partition) \
               where l.stored > 0 and l.first_origin > 0 and l.last_origin < (select held_origin \
               from tapeline_fence f where f.topic = l.topic and f.partition = l.partition) \
               order by l.id limit 1";
    let (id, topic, partition, first, last): (i64, String, i32, i64, i64) =
        sqlx::query_as(sql).fetch_one(&mut *database).await.expect("a row of the ledger");
    let place = format!("{topic} [{partition}]: ");
    let kept = (
        format!(
            "create temp table kept as select * from tapeline_ledger where id = {id}; \
             delete from tapeline_ledger where id = {id}"
        ),
        "insert into tapeline_ledger overriding system value select * from kept; drop table kept",
    );
    let words = format!("{place}raw offsets {first} to {last} are in no batch");
    tamper(pipeline, database, (&kept.0, kept.1), ("checked_to_stored", &words)).await;
    let set = |what: &str| format!("update tapeline_ledger set {what} where id = {id}");
    let counts = (set("stored = stored - 1"), set("stored = stored + 1"));
    let words =
        format!("{place}the batch of raw offsets {first} to {last} has {} outcomes", last - first);
    tamper(pipeline, database, (&counts.0, &counts.1), ("checked_to_stored", &words)).await;
    let counts = (
        set("stored = stored - 1, duplicate = duplicate + 1"),
        set("stored = stored + 1, duplicate = duplicate - 1"),
    );
    let words = format!("{place}the batch of raw offsets {first} to {last} stored");
    tamper(pipeline, database, (&counts.0, &counts.1), ("checked_to_stored", &words)).await;
    let overlap = (set("first_origin = first_origin - 1"), set("first_origin = first_origin + 1"));
    let words = format!("{place}raw offsets from {} on are in two batches", first - 1);
    tamper(pipeline, database, (&overlap.0, &overlap.1), ("checked_to_stored", &words)).await;
    let id = (set("topic_id = reverse(topic_id)"), set("topic_id = reverse(topic_id)"));
    tamper(pipeline, database, (&id.0, &id.1), ("checked_to_stored", "a batch is of topic id"))
        .await;
    let control = "update tapeline_ledger set control = control - 1, skipped = skipped + 1 \
                   where id = (select min(id) from tapeline_ledger where control > 0 and topic like '%.trade')";
    let undo =
        "update tapeline_ledger set control = control + 1, skipped = skipped - 1 where skipped > 0";
    tamper(pipeline, database, (control, undo), ("outcomes", "control by validate")).await;
}
