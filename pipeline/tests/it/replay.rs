//! Replays through the real way: into the store, into shadows, into other topics.

use std::sync::Mutex;
use std::time::Duration;

use sqlx::Executor as _;
use tapeline::audit::Scope;
use tapeline::replay::{self, Place, Report, Reporter, Request, Target};
use tapeline::wiring::StageName;
use tapeline_schemas::{Kind, partition_for};
use tokio_util::sync::CancellationToken;

use crate::common::{Pipeline, Running, eventually};
use crate::look::{self, trade};
use crate::replayed::{MINUTE, OTHERS, START, TRADES, candles_are_there, digests, publish};

mod shadows;
mod topics;

/// Kinds whose checked topics the store reads.
const STORED: [&str; 6] = ["trade", "ticker", "book", "candle", "anomaly", "gap"];

/// A pipeline whose tables and candles are complete, and its stages.
async fn filled(name: &str) -> (Pipeline, Vec<Running>) {
    let pipeline = Pipeline::new(name).await;
    let stages: Vec<_> = [StageName::Validate, StageName::Store, StageName::Candles]
        .map(|stage| pipeline.start(stage))
        .into();
    let once = publish(&pipeline).await;
    look::all_accounted(&pipeline, once).await;
    candles_are_there(&pipeline).await;
    (pipeline, stages)
}

/// Replays to the end; its name.
async fn finished(pipeline: &Pipeline, request: Request) -> String {
    let stop = pipeline.shutdown.child_token();
    let ended = replay::start(&pipeline.context, request, None, &mut (), stop).await;
    let ended = ended.expect("the replay ends well");
    assert!(ended.complete);
    ended.name
}

/// The first thing that the audit finds wrong. Values in Redis are none of a replay's.
async fn audited(pipeline: &Pipeline) -> Result<(), String> {
    let audit = tapeline::audit::run(&pipeline.context.config, &Scope::default()).await;
    let checks = audit.expect("an audit").checks;
    match checks.iter().find(|check| !check.ok && check.name != "redis") {
        Some(wrong) => Err(format!("{wrong:?}")),
        None => Ok(()),
    }
}

async fn refused(pipeline: &Pipeline, request: Request) -> String {
    let stop = pipeline.shutdown.child_token();
    let ended = replay::start(&pipeline.context, request, None, &mut (), stop).await;
    format!("{:#}", ended.expect_err("the replay must be refused"))
}

/// Sum of a column of the ledger over one replay.
async fn ledger(pipeline: &Pipeline, name: &str, column: &str) -> i64 {
    let id = &pipeline.context.config.pipeline.id;
    let sql = format!(
        "select coalesce(sum({column}), 0)::bigint from tapeline_ledger where pipeline = '{id}/replay/{name}'"
    );
    pipeline.count(&sql).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replays_of_any_range_however_often_and_beside_live_data_change_no_row_invariant_5() {
    let (pipeline, stages) = filled("replay").await;
    let before = digests(&pipeline).await;
    let requests = [
        Request::new(&STORED, Target::Store),
        Request::new(&STORED, Target::Store),
        Request {
            from: Place::At(7),
            to: Place::At(40),
            partitions: vec![partition_for(b"TEST:A-USD", 4)],
            ..Request::new(&["trade"], Target::Store)
        },
        Request { from: Place::BeforeEnd(25), ..Request::new(&["trade", "book"], Target::Store) },
        Request {
            symbols: vec!["TEST:A-USD".into()],
            ..Request::new(&["trade", "ticker"], Target::Store)
        },
        Request {
            from_event_time: Some(START + 3 * MINUTE),
            partitions: vec![0, 1],
            ..Request::new(&["trade"], Target::Store)
        },
    ];
    for request in requests {
        let partial = request.partitions.is_empty() && request.symbols.is_empty();
        let whole = request.from == Place::Beginning && request.topics.len() == STORED.len();
        let name = finished(&pipeline, request).await;
        assert_eq!(digests(&pipeline).await, before, "replay {name}");
        assert_eq!(ledger(&pipeline, &name, "stored").await, 0, "replay {name} added rows");
        assert!(!partial || ledger(&pipeline, &name, "duplicate").await > 0, "{name} read nothing");
        if whole {
            let raw = "case when topic ~ '(trade|ticker|book)$' then duplicate end";
            assert_eq!(ledger(&pipeline, &name, raw).await, TRADES + 2 * OTHERS);
        }
    }
    // New events flow while the whole log is replayed, twice.
    let later = |from: i64| -> Vec<_> {
        let at = |id| trade("TEST", "A-USD", id, "101.5", START + id * 1_000_000);
        (from..from + 300).map(at).collect()
    };
    let whole = || finished(&pipeline, Request::new(&STORED, Target::Store));
    let more = later(10_000);
    tokio::join!(look::publish(&pipeline, &more), whole());
    let more = later(20_000);
    tokio::join!(look::publish(&pipeline, &more), whole());
    let sql = "select count(*) from market_data_trades";
    eventually("new trades are stored", || async { pipeline.count(sql).await == TRADES + 600 })
        .await;
    look::all_accounted(&pipeline, TRADES + 2 * OTHERS + 4 + 600).await;
    // Whoever came first, each row was added once: the ledger of all together says so.
    let added = "select coalesce(sum(value::bigint), 0)::bigint from tapeline_ledger, jsonb_each_text(by_day) where topic like '%.trade'";
    assert_eq!(pipeline.count(added).await, TRADES + 600);
    audited(&pipeline).await.expect("the accounts are kept");
    let fences = "select count(*) from tapeline_fence where pipeline like '%/replay/%'";
    assert_eq!(pipeline.count(fences).await, 0, "a finished replay needs no fence");
    for stage in stages {
        stage.stop().await;
    }
    pipeline.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_missing_come_back_and_are_counted_invariant_5() {
    let (pipeline, stages) = filled("replay_missing").await;
    for stage in stages {
        stage.stop().await;
    }
    let before = digests(&pipeline).await;
    let mut database = pipeline.database().await;
    database
        .execute("delete from market_data_trades where symbol = 'B-USD' and sequence % 2 = 0")
        .await
        .expect("deleted");
    assert_ne!(digests(&pipeline).await, before);
    let name = finished(&pipeline, Request::new(&["trade"], Target::Store)).await;
    assert_eq!(digests(&pipeline).await, before);
    assert_eq!(ledger(&pipeline, &name, "stored").await, TRADES / 6);
    let days = "(select sum(value::bigint) from jsonb_each_text(by_day))";
    assert_eq!(ledger(&pipeline, &name, days).await, TRADES / 6);
    pipeline.finish().await;
}

/// Stops a replay once it has made some rows durable.
struct StopAt(i64, CancellationToken, Mutex<i64>);

impl Reporter for StopAt {
    fn report(&mut self, report: Report<'_>, _: bool) {
        *self.2.lock().expect("unpoisoned") = report.done;
        if report.done >= self.0 {
            self.1.cancel();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_was_stopped_keeps_its_pace_and_goes_on_where_it_was_invariants_1_and_2() {
    let (pipeline, stages) = filled("replay_resumed").await;
    for stage in stages {
        stage.stop().await;
    }
    // A second half, appended later: at its pace the replay is stopped in between.
    let validate = pipeline.start(StageName::Validate);
    let raw = TRADES + 2 * OTHERS + 4;
    // No synchronisation: time that the broker's stamps are to show.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let at = |id| trade("TEST", "A-USD", id, "101.5", START + id * 1_000_000);
    let later: Vec<_> = (10_000..10_100).map(at).collect();
    look::publish(&pipeline, &later).await;
    eventually("they are checked", || async {
        look::read_kind(&pipeline, Kind::Trade).len() as i64 == TRADES + 4 + 100
    })
    .await;
    validate.stop().await;
    let before = digests(&pipeline).await;
    let mut database = pipeline.database().await;
    database.execute("truncate market_data_trades").await.expect("truncated");
    let stop = pipeline.shutdown.child_token();
    let mut stopper = StopAt(TRADES, stop.clone(), Mutex::new(0));
    let request = Request { speed: Some(0.2), ..Request::new(&["trade"], Target::Store) };
    let ended = replay::start(&pipeline.context, request, Some("slow"), &mut stopper, stop).await;
    let ended = ended.expect("stops well");
    assert!(!ended.complete && ended.name == "slow");
    let done = ledger(&pipeline, "slow", "last_offset - first_offset + 1").await;
    assert!((TRADES..TRADES + 104).contains(&done), "{done} of {raw}");
    let entries = replay::list(&mut database, &pipeline.context.config.pipeline.id).await;
    let entry = entries.expect("listed").pop().expect("an entry");
    assert_eq!((entry.name.as_str(), entry.state.as_str()), ("slow", "interrupted"));
    assert_eq!(entry.positions.iter().map(|part| part.next - part.from).sum::<i64>(), done);
    let stop = pipeline.shutdown.child_token();
    let ended = replay::resume(&pipeline.context, None, &mut (), stop).await.expect("goes on");
    assert!(ended.complete);
    // Nothing was read twice, and nothing is missing.
    assert_eq!(ledger(&pipeline, "slow", "last_offset - first_offset + 1").await, TRADES + 104);
    assert_eq!(ledger(&pipeline, "slow", "stored").await, TRADES + 100);
    let after = digests(&pipeline).await;
    assert_eq!(after[1..], before[1..]);
    assert_eq!(pipeline.count("select count(*) from market_data_trades").await, TRADES + 100);
    let stop = pipeline.shutdown.child_token();
    let again = replay::resume(&pipeline.context, Some("slow"), &mut (), stop).await;
    assert!(again.expect_err("done").to_string().contains("is done"));
    pipeline.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_replayed_is_refused_by_name_and_a_dry_run_touches_nothing() {
    let (pipeline, stages) = filled("replay_refused").await;
    for stage in stages {
        stage.stop().await;
    }
    let prefix = pipeline.context.config.kafka.topic_prefix.clone();
    let into_store = |topics: &[&str]| Request::new(topics, Target::Store);
    let shadow = || Target::Shadow("a".into());
    let cases = [
        (into_store(&["trades"]), "topic `trades` is unknown"),
        (into_store(&[]), "no topic"),
        (into_store(&[&format!("{prefix}trade.raw")]), "checked topic"),
        (into_store(&["quarantine"]), "cannot be replayed into the store"),
        (
            Request { from: Place::At(1_000_000), ..into_store(&["trade"]) },
            "[0] offset 1000000 is not in the log, which holds 0..",
        ),
        (
            Request { from: Place::End, to: Place::At(0), ..into_store(&["trade"]) },
            "ends before it",
        ),
        (Request { from: Place::End, ..into_store(&["trade"]) }, "the range is empty"),
        (
            Request { partitions: vec![4], ..into_store(&["trade"]) },
            "has no partition 4: it has 0 to 3",
        ),
        (Request { revalidate: true, ..into_store(&["trade"]) }, "into a shadow alone"),
        (Request { speed: Some(0.0), ..into_store(&["trade"]) }, "--speed"),
        (Request::new(&["candle"], shadow()), "name trade, ticker or book"),
        (Request::new(&[&format!("{prefix}trade.raw")], shadow()), "--revalidate alone"),
        (Request::new(&["trade", "book"], Target::Topic("x".into())), "takes one --topic"),
        (Request::new(&["trade"], Target::Topic(format!("{prefix}trade.raw"))), "into itself"),
        (Request::new(&["trade"], Target::Topic(format!("{prefix}book.raw"))), "holds"),
    ];
    for (request, reason) in cases {
        let said = refused(&pipeline, request).await;
        assert!(said.contains(reason), "`{said}` does not say `{reason}`");
    }
    // Rows of this day were taken away by lifecycle.
    let mut database = pipeline.database().await;
    let id = &pipeline.context.config.pipeline.id;
    let sql = format!(
        "insert into tapeline_removals (pipeline, table_name, day, rows, reason)
        values ('{id}', 'market_data_ticker', to_timestamp({START} / 1e6)::date, 60, 'retention')"
    );
    database.execute(sql.as_str()).await.expect("removed");
    let said = refused(&pipeline, into_store(&["ticker"])).await;
    assert!(said.contains("2023-11-14") && said.contains("a restore, not a replay"), "{said}");
    finished(&pipeline, into_store(&["trade"])).await;

    let tables = "select count(*) from tapeline_replays";
    let count = pipeline.count(tables).await;
    let request = Request { from: Place::At(5), ..into_store(&["book"]) };
    let said = replay::preview(&pipeline.context, &request).await;
    assert!(
        format!("{:#}", said.expect_err("some are empty")).contains("offset 5 is not in the log")
    );
    let request = Request { from: Place::BeforeEnd(5), ..into_store(&["book", "trade"]) };
    let parts = replay::preview(&pipeline.context, &request).await.expect("a plan");
    assert_eq!(parts.len(), 8);
    assert!(parts.iter().all(|part| part.count() <= 5 && part.next == part.from));
    let books = parts.iter().filter(|part| part.topic.ends_with("book"));
    assert_eq!(books.map(|part| part.count()).sum::<i64>(), 5);
    assert_eq!(pipeline.count(tables).await, count, "a dry run leaves no trace");
    pipeline.finish().await;
}
