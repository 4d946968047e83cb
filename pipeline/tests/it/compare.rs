//! A second database beside the first: written by a store of its own, compared row by row,
//! switched to and back (S6).

use std::process::{Output, Stdio};

use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection};
use tapeline::config::Config;
use tapeline::wiring::StageName;

use crate::common::{Pipeline, admin_url, eventually, replace_last_segment, template};
use crate::look::{self, trade};

const START: i64 = 1_700_000_000_000_000;

/// The database that is moved to.
struct Second {
    name: String,
    url: String,
}

impl Second {
    async fn new(pipeline: &Pipeline) -> Second {
        let name = format!("test_{}_b", pipeline.context.config.pipeline.id);
        let mut admin = PgConnection::connect(&admin_url()).await.expect("database");
        let create = format!("create database {name} template {}", template());
        admin.execute(create.as_str()).await.expect("created");
        let url = replace_last_segment(&admin_url(), &name);
        tapeline::migrate::up(&url).await.expect("migrations");
        Second { name, url }
    }

    async fn execute(&self, sql: &str) {
        let mut own = PgConnection::connect(&self.url).await.expect("database");
        own.execute(sql).await.expect(sql);
    }

    async fn count(&self, sql: &str) -> i64 {
        let mut own = PgConnection::connect(&self.url).await.expect("database");
        sqlx::query_scalar(sql).fetch_one(&mut own).await.expect(sql)
    }

    async fn remove(self) {
        let mut admin = PgConnection::connect(&admin_url()).await.expect("database");
        let drop = format!("drop database {} with (force)", self.name);
        admin.execute(drop.as_str()).await.expect("dropped");
    }
}

fn run(pipeline: &Pipeline, args: &[&str], change: impl FnOnce(&mut Config)) -> Output {
    let mut command = pipeline.command(args, change);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("the binary runs")
}

/// Compares the first database with the second; the exit code and the tables that differ.
fn compared(pipeline: &Pipeline, second: &Second, args: &[&str]) -> (i32, Vec<Value>) {
    let args = [&["compare", "-", &second.url, "--json"], args].concat();
    let output = run(pipeline, &args, |_| {});
    let json: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let code = output.status.code().expect("an exit code");
    assert_eq!(json["ok"], code == 0);
    let tables = json["tables"].as_array().expect("tables").clone();
    let differs =
        |table: &Value| ["missing", "extra", "changed"].iter().any(|sort| table[sort] != 0);
    (code, tables.into_iter().filter(differs).collect())
}

async fn publish(pipeline: &Pipeline, ids: std::ops::Range<i64>) {
    let symbol = |id: i64| format!("S{}-USD", id % 5);
    let trades: Vec<_> =
        // Seven seconds apart: over a day, with minutes that close.
        ids.map(|id| trade("TEST", &symbol(id), id, "1.25", START + id * 7_000_000)).collect();
    look::publish(pipeline, &trades).await;
}

const TRADES: &str = "select count(*) from market_data_trades";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_databases_are_compared_row_by_row_and_every_difference_is_named_s6() {
    let pipeline = Pipeline::new("compare").await;
    let second = Second::new(&pipeline).await;
    let moved = |config: &mut Config| {
        config.pipeline.id.push_str("_b");
        config.database.url.clone_from(&second.url);
    };
    let stages = [StageName::Validate, StageName::Store, StageName::Candles];
    let stages = stages.map(|stage| pipeline.start(stage));
    let store = pipeline.start_member(&pipeline.member(moved), StageName::Store);
    publish(&pipeline, 0..15_000).await;
    eventually("both have all", || async {
        pipeline.count(TRADES).await == 15_000 && second.count(TRADES).await == 15_000
    })
    .await;
    eventually("both have the same", || async { compared(&pipeline, &second, &[]).0 == 0 }).await;
    let candles = "select count(*) from market_data_ohlcv";
    assert!(second.count(candles).await > 1_000, "candles are stored twice too");

    second.execute("delete from market_data_trades where trade_id in ('7', '14000')").await;
    second.execute("update market_data_trades set price = 1.26 where trade_id = '3000'").await;
    let other = "insert into market_data_trades (time, exchange, symbol, trade_id, price, amount, side,
        receive_time, origin_partition, origin) values ('2020-01-01', 'TEST', 'S1-USD', 'x', 1, 1, 'buy', now(), 0, 1)";
    second.execute(other).await;
    let (code, tables) = compared(&pipeline, &second, &[]);
    assert_eq!((code, tables.len()), (1, 1), "{tables:?}");
    let table = &tables[0];
    assert_eq!(table["table"], "market_data_trades");
    assert_eq!((&table["rows_a"], &table["rows_b"]), (&15_000.into(), &14_999.into()));
    let counts = ["missing", "extra", "changed"].map(|sort| table[sort].as_i64());
    assert_eq!(counts, [Some(2), Some(1), Some(1)]);
    let first: Vec<_> = table["first"].as_array().expect("rows").iter().collect();
    for (row, (what, id)) in first.iter().zip([
        ("missing", ",7)"),
        ("missing", ",14000)"),
        ("extra", ",x)"),
        ("changed", ",3000)"),
    ]) {
        let row = row.as_str().expect("text");
        assert!(row.starts_with(what) && row.ends_with(id), "{row}");
    }
    let only = |args: &[&str]| compared(&pipeline, &second, args).0;
    assert_eq!(only(&["--table", "candle,market_data_gaps"]), 0);
    assert_eq!(
        only(&["--table", "trade", "--from", "2023-11-15T10:00:00Z", "--to", "2023-11-16"]),
        0
    );
    assert_eq!(only(&["--table", "trade", "--to", "2023-11-15"]), 1);
    for (args, text) in [
        (&["compare", "-", "postgres://tapeline:hunter2@127.0.0.1:1/x"][..], "database B"),
        (&["compare", "-", "-", "--table", "trades"], "`trades`"),
    ] {
        let output = run(&pipeline, args, |_| {});
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(text) && !told.contains("hunter2"), "{told}");
    }
    store.stop().await;
    for stage in stages {
        stage.stop().await;
    }
    second.remove().await;
    pipeline.finish().await;
}

/// The steps of docs/operations.md, "Moving to another database", in their order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_to_another_database_and_back_loses_nothing_while_data_flows_s6() {
    let pipeline = Pipeline::new("moving").await;
    let moved = |second: &Second, config: &mut Config| {
        config.pipeline.id.push_str("_b");
        config.database.url.clone_from(&second.url);
    };
    let stages = [StageName::Validate, StageName::Store, StageName::Candles];
    let stages = stages.map(|stage| pipeline.start(stage));
    publish(&pipeline, 0..1_000).await;
    eventually("the old one has all", || async { pipeline.count(TRADES).await == 1_000 }).await;

    // 1 and 2: the new one is made, and written beside the old one from the beginning of the log.
    let second = Second::new(&pipeline).await;
    let member = pipeline.member(|config| moved(&second, config));
    let store = pipeline.start_member(&member, StageName::Store);
    publish(&pipeline, 1_000..2_000).await;

    // 3: compared, up to where both have arrived.
    eventually("equal", || async { compared(&pipeline, &second, &[]).0 == 0 }).await;
    assert_eq!(second.count(TRADES).await, 2_000);

    // 4: readers are switched; they see the same.
    let asked = ["query", "--symbol", "S1-USD", "--from", "2023-11-14", "--to", "2023-11-16"];
    let before = run(&pipeline, &asked, |_| {});
    let after =
        run(&pipeline, &asked, |config| config.database.read_url = Some(second.url.clone()));
    assert!(before.status.success(), "{}", String::from_utf8_lossy(&before.stderr));
    assert!(after.status.success() && before.stdout.len() > 10_000);
    assert_eq!(before.stdout, after.stdout);

    // 5: rolled back. The old one never stopped being written, whatever became of the new one.
    store.stop().await;
    publish(&pipeline, 2_000..3_000).await;
    eventually("the old one goes on", || async { pipeline.count(TRADES).await == 3_000 }).await;
    let (code, tables) = compared(&pipeline, &second, &["--table", "trade"]);
    assert_eq!((code, &tables[0]["missing"]), (1, &1_000.into()));

    // Tried again: the new one's own fence says where it goes on.
    let store = pipeline.start_member(&member, StageName::Store);
    eventually("equal again", || async { compared(&pipeline, &second, &[]).0 == 0 }).await;

    // 6: candles are made in the new one, under the old name; then the old store may stop.
    let [validate, old_store, candles] = stages;
    candles.stop().await;
    old_store.stop().await;
    let unsent = "select count(*) from tapeline_candle_outbox";
    assert_eq!(pipeline.count(unsent).await, 0);
    let renamed = pipeline.member(|config| config.database.url.clone_from(&second.url));
    let candles = pipeline.start_member(&renamed, StageName::Candles);
    publish(&pipeline, 3_000..4_000).await;
    eventually("the new one has all", || async { second.count(TRADES).await == 4_000 }).await;
    let wrong = "select count(*) from market_data_ohlcv c where timeframe = '1m' and final and trades_count <>
        (select count(*) from market_data_trades t where t.symbol = c.symbol and t.time >= c.time and t.time < c.close_time)";
    let newest = "select count(*) from market_data_ohlcv where timeframe = '1m' and time > to_timestamp(1700000000 + 3900 * 7)";
    eventually("the new one's candles go on", || async { second.count(newest).await > 0 }).await;
    assert_eq!(second.count(wrong).await, 0);
    for stage in [store, candles, validate] {
        stage.stop().await;
    }
    second.remove().await;
    pipeline.finish().await;
}
