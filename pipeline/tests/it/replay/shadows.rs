//! Shadows: what they find, and what becomes of them.

use sqlx::Executor as _;
use tapeline::replay::{self, DifferenceReport, Place, Report, Reporter, Request, Target};
use tokio_util::sync::CancellationToken;

use super::{audited, filled, finished, refused};
use crate::common::{Pipeline, Running};
use crate::look;
use crate::replayed::{START, TRADES, digests};

const RAW: [&str; 3] = ["trade", "ticker", "book"];
/// Candles as they were: a repaired one has a higher revision.
const CANDLES: &str = "select exchange, symbol, timeframe, time, open, high, low, close, volume, quote_volume, trades_count, final, close_time, receive_time from market_data_ohlcv order by 1, 2, 3, 4";

fn shadow(name: &str, topics: &[&str]) -> Request {
    Request::new(topics, Target::Shadow(name.to_owned()))
}

async fn report(pipeline: &Pipeline, name: &str) -> DifferenceReport {
    replay::differences(&pipeline.context, name).await.expect("a report")
}

/// Missing, extra and changed rows of a table.
fn counts(report: &DifferenceReport, table: &str) -> (i64, i64, i64) {
    let found = report.tables.iter().find(|of| of.table == table).expect(table);
    (found.missing, found.extra, found.changed)
}

async fn stop(stages: Vec<Running>) {
    for stage in stages {
        stage.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_names_exactly_what_was_tampered_with_and_promoting_it_repairs_that_invariants_5_and_7()
 {
    let (pipeline, stages) = filled("shadow").await;
    assert_eq!(finished(&pipeline, shadow("one", &RAW)).await, "one");
    stop(stages).await;
    let equal = report(&pipeline, "one").await;
    assert!(equal.is_equal(), "{equal}");
    let rows = "select count(*) from shadow_one.market_data_trades";
    assert_eq!(pipeline.count(rows).await, TRADES);
    let (live, built) = (
        "select count(*) from market_data_ohlcv",
        "select count(*) from shadow_one.market_data_ohlcv",
    );
    assert_eq!(pipeline.count(built).await, pipeline.count(live).await);

    let before = (digests(&pipeline).await, look::rows(&pipeline, CANDLES).await);
    let mut database = pipeline.database().await;
    for tamper in [
        "update market_data_trades set price = price + 0.000000000000000001 where trade_id = '7'",
        "delete from market_data_trades where trade_id in ('10', '11', '12')",
        "update market_data_trades set trade_id = 'x' where trade_id = '20'",
        "update market_data_ticker set bid_volume = 2 where event_id = '5'",
        "delete from market_data_orderbook where event_id = '6'",
        "update market_data_ohlcv set volume = volume + 1 where symbol = 'A-USD' and timeframe = '1h'",
        "delete from market_data_ohlcv where symbol = 'B-USD' and timeframe = '1m'
            and time = (select min(time) from market_data_ohlcv where timeframe = '1m')",
        "insert into market_data_ohlcv select time + interval '3 seconds', exchange, symbol, timeframe,
            source, open, high, low, close, volume, quote_volume, trades_count, final, revision,
            close_time, receive_time from market_data_ohlcv where symbol = 'C-USD' and timeframe = '1m'
            and close_time = (select max(close_time) from market_data_ohlcv where timeframe = '1m')",
    ] {
        let done = database.execute(tamper).await.expect(tamper);
        assert!(done.rows_affected() > 0, "{tamper}");
    }
    let found = report(&pipeline, "one").await;
    assert_eq!(counts(&found, "market_data_trades"), (4, 1, 1), "{found}");
    assert_eq!(counts(&found, "market_data_ticker"), (0, 0, 1), "{found}");
    assert_eq!(counts(&found, "market_data_orderbook"), (1, 0, 0), "{found}");
    assert_eq!(counts(&found, "market_data_ohlcv"), (1, 1, 1), "{found}");
    let named = found.to_string();
    assert!(named.contains("changed TEST B-USD 2023-11-14 22:13:27+00 7"), "{named}");
    assert!(named.contains("extra TEST C-USD 2023-11-14 22:13:40+00 x"), "{named}");

    audited(&pipeline).await.expect_err("the audit sees it too");
    let left = replay::promote(&pipeline.context, "one").await.expect("promoted");
    assert!(left.is_equal(), "{left}");
    assert!(report(&pipeline, "one").await.is_equal());
    let after = digests(&pipeline).await;
    for table in [0, 1, 2, 4, 5] {
        assert_eq!(after[table], before.0[table]);
    }
    assert_eq!(look::rows(&pipeline, CANDLES).await, before.1);
    // Readers of the log are told of candles that were made again.
    let told =
        "select count(*) from tapeline_candle_outbox where timeframe = '1h' and revision > 0";
    assert_eq!(pipeline.count(told).await, 1);

    audited(&pipeline).await.expect("the accounts are kept");
    assert!(refused(&pipeline, shadow("one", &RAW)).await.contains("named one already"));
    let kafka = pipeline.context.config.kafka.clone();
    replay::remove(&pipeline.context, "one").await.expect("dropped");
    let schemas = "select count(*) from pg_namespace where nspname = 'shadow_one'";
    assert_eq!(pipeline.count(schemas).await, 0);
    assert_eq!(pipeline.count("select count(*) from tapeline_replays").await, 0);
    let scratch = tapeline::kafka::Admin::new(&kafka)
        .expect("admin")
        .describe(&[&format!("{}shadow.one.candle", kafka.topic_prefix)]);
    assert!(scratch.is_err(), "the scratch topics are gone");
    assert_eq!(digests(&pipeline).await, after);
    pipeline.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shadows_of_a_part_judged_anew_or_not_equal_the_live_tables_invariants_4_and_7() {
    let (pipeline, stages) = filled("shadow_part").await;
    stop(stages).await;
    let requests = [
        Request { from: Place::BeforeEnd(100), ..shadow("tail", &["trade"]) },
        Request { symbols: vec!["B-USD".into()], ..shadow("symbol", &["trade", "book"]) },
        Request {
            from_event_time: Some(START + 90_000_000),
            ..shadow("time", &["trade", "ticker"])
        },
        Request { revalidate: true, ..shadow("judged", &RAW) },
    ];
    for request in requests {
        let name = finished(&pipeline, request).await;
        let report = report(&pipeline, &name).await;
        assert!(report.is_equal(), "{report}");
        let sql = format!("select count(*) from shadow_{name}.market_data_trades");
        let trades = pipeline.count(&sql).await;
        assert!((50..=TRADES).contains(&trades), "{name} has {trades} trades");
        assert_eq!(trades == TRADES, name == "judged");
        let sql = format!("select count(*) from shadow_{name}.market_data_ohlcv where final");
        assert!(pipeline.count(&sql).await > 5, "{name} has no candles");
        replay::remove(&pipeline.context, &name).await.expect("dropped");
    }
    let live = "select count(*) from tapeline_ledger where pipeline like '%/shadow/%'";
    assert_eq!(pipeline.count(live).await, 0, "a shadow's ledger is its own");
    pipeline.finish().await;
}

/// Stops a replay in its steps of one name.
struct StopIn(&'static str, CancellationToken);

impl Reporter for StopIn {
    fn report(&mut self, report: Report<'_>, _: bool) {
        if report.what == self.0 {
            self.1.cancel();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shadow_that_is_stopped_in_any_step_goes_on_and_ends_the_same_invariants_5_and_7() {
    let (pipeline, stages) = filled("shadow_resumed").await;
    stop(stages).await;
    let steps =
        ["validate", "store", "candles", "store candles", "revise candles", "longer candles"];
    let request = Request { revalidate: true, ..shadow("stopped", &["trade"]) };
    let token = pipeline.shutdown.child_token();
    let mut stopper = StopIn(steps[0], token.clone());
    let ended = replay::start(&pipeline.context, request, None, &mut stopper, token).await;
    assert!(!ended.expect("stops well").complete);
    let early = replay::differences(&pipeline.context, "stopped").await.expect_err("not done");
    assert!(early.to_string().contains("--resume stopped"), "{early}");
    for step in &steps[1..] {
        let token = pipeline.shutdown.child_token();
        let mut stopper = StopIn(step, token.clone());
        let ended = replay::resume(&pipeline.context, None, &mut stopper, token).await;
        assert!(!ended.expect("stops well").complete, "{step}");
    }
    let token = pipeline.shutdown.child_token();
    let ended = replay::resume(&pipeline.context, None, &mut (), token).await.expect("goes on");
    assert!(ended.complete && ended.is_shadow);
    let report = report(&pipeline, "stopped").await;
    assert!(report.is_equal(), "{report}");
    let built = "select count(*) from shadow_stopped.market_data_ohlcv";
    let live = "select count(*) from market_data_ohlcv";
    assert_eq!(pipeline.count(built).await, pipeline.count(live).await);
    replay::remove(&pipeline.context, "stopped").await.expect("dropped");
    pipeline.finish().await;
}
