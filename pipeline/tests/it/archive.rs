//! What is old leaves the database only for an archive that was read back (S1, S3): real
//! TimescaleDB, a folder as object store, real processes to kill.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{Connection, Executor, PgConnection};
use tapeline::archive::{self, Day, Format, Query, Restore, Store, Wanted};
use tapeline::config::{ArchiveConfig, LifecycleConfig, Periods};
use tapeline::{lifecycle, migrate};

static NEXT: AtomicU32 = AtomicU32::new(0);
const TABLES: [&str; 5] = [
    "market_data_trades",
    "market_data_ticker",
    "market_data_orderbook",
    "market_data_ohlcv",
    "market_data_anomalies",
];

/// A database and a folder that only one test uses.
pub(crate) struct Place {
    admin_url: String,
    name: String,
    pub(crate) url: String,
    folder: PathBuf,
}

impl Place {
    pub(crate) async fn new(test: &str) -> Place {
        let env =
            |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
        let admin_url =
            env("TAPELINE__DATABASE__URL", "postgres://tapeline:tapeline@127.0.0.1:15432/tapeline");
        let template = env("TAPELINE_DB_TEMPLATE", "tapeline_template");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{test}_{}_{number}", std::process::id());
        let mut admin = PgConnection::connect(&admin_url).await.expect("database");
        admin
            .execute(format!("create database {name} template {template}").as_str())
            .await
            .expect("create");
        let (head, _) = admin_url.rsplit_once('/').expect("a url with a path");
        let url = format!("{head}/{name}");
        migrate::up(&url).await.expect("migrations");
        let folder = std::env::temp_dir().join(&name);
        std::fs::create_dir(&folder).expect("folder");
        Place { admin_url, name, url, folder }
    }

    pub(crate) async fn database(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.expect("database")
    }

    pub(crate) fn archive(&self) -> ArchiveConfig {
        let url = format!("file://{}", self.folder.display());
        ArchiveConfig { url: Some(url), properties: BTreeMap::new() }
    }

    fn store(&self) -> Store {
        Store::open(&self.archive()).expect("a folder")
    }

    /// The command as an operator types it.
    fn tapeline(&self, arguments: &[&str], failpoint: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_tapeline"))
            .args(arguments)
            .env("TAPELINE__DATABASE__URL", &self.url)
            .env("TAPELINE__ARCHIVE__URL", self.archive().url.unwrap_or_default())
            .env("TAPELINE__LIFECYCLE__PERIODS__COMPRESS_AFTER_DAYS", "1")
            .env("TAPELINE__LIFECYCLE__PERIODS__ARCHIVE_AFTER_DAYS", "1")
            .env("TAPELINE__LIFECYCLE__PERIODS__DROP_AFTER_DAYS", "1")
            .env("TAPELINE_FAILPOINTS", failpoint)
            .output()
            .expect("runs")
    }

    /// Every object of the archive.
    fn objects(&self, extension: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|found| found == extension) {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }

    /// Begins the archive anew.
    fn empty(&self) {
        std::fs::remove_dir_all(&self.folder).expect("folder");
        std::fs::create_dir(&self.folder).expect("folder");
    }

    pub(crate) async fn finish(self) {
        let mut admin = PgConnection::connect(&self.admin_url).await.expect("database");
        let drop = format!("drop database {} with (force)", self.name);
        // autovacuum may be at work in it, and only a superuser may end that
        while admin.execute(drop.as_str()).await.is_err() {
            tokio::task::yield_now().await;
        }
        std::fs::remove_dir_all(&self.folder).expect("folder");
    }
}

/// Three days of 2021 of every archived kind, with nulls, long numbers and all that JSON may hold.
pub(crate) async fn fill(database: &mut PgConnection) {
    database
        .execute(
            r#"
        insert into market_data_trades (time, exchange, symbol, trade_id, price, amount, side, type, sequence,
            receive_time, origin_partition, origin)
        select t, case when n % 3 = 0 then 'KRAKEN' else 'BINANCE' end, 'S' || n % 7 || '-USD', n::text,
            trim_scale(n * 0.000000000000000001 + n % 100000), trim_scale((n % 977) / 1000.0), 'buy',
            case when n % 2 = 0 then 'limit' end, nullif(n % 5, 0), t, n % 4, n
        from generate_series(1, 6000) n, lateral (select '2021-04-17T00:00:00Z'::timestamptz + n * interval '41 seconds' t) x;
        insert into market_data_ticker (time, exchange, symbol, event_id, last_price, bid_price, receive_time,
            origin_partition, origin)
        select t, 'UPBIT', 'BTC-KRW', n::text, case when n % 2 = 0 then -n end, 99999999999999999999, t, 0, n
        from generate_series(1, 500) n, lateral (select '2021-04-17T00:00:00Z'::timestamptz + n * interval '400 seconds' t) x;
        insert into market_data_orderbook (time, exchange, symbol, event_id, bids, asks, timestamp_ms,
            receive_time, origin_partition, origin)
        select t, 'KRAKEN', 'BTC-USD', n::text, '[["1.10", "2"]]', '[["\"ü", "0"]]', n, t, 1, n
        from generate_series(1, 300) n, lateral (select '2021-04-18T00:00:00Z'::timestamptz + n * interval '1 second' t) x;
        insert into market_data_ohlcv (time, exchange, symbol, timeframe, source, open, high, low, close, volume,
            quote_volume, trades_count, final, revision, close_time, receive_time)
        select t, 'KRAKEN', 'S' || n % 3 || '-USD', '1m', 'tapeline', 1, 2, 0.5, 1.5, n,
            trim_scale(n * 0.000000000000000000000000000000000001), n, n % 2 = 0, 0, t + interval '1 minute', t
        from generate_series(1, 400) n, lateral (select '2021-04-17T00:00:00Z'::timestamptz + n * interval '1 minute' t) x;
        insert into market_data_anomalies (time, origin_topic, origin_partition, origin, exchange, symbol, kind,
            flags, detail, receive_time)
        select t, 'md.trade.raw', 0, n, 'KRAKEN', 'BTC-USD', 'trade',
            case when n % 2 = 0 then array['late', 'a "b", c'] else '{}'::text[] end, 'what, "why"', t
        from generate_series(1, 50) n, lateral (select '2021-04-19T00:00:00Z'::timestamptz + n * interval '1 hour' t) x;"#,
        )
        .await
        .expect("rows");
}

async fn sums(database: &mut PgConnection) -> Vec<String> {
    let mut sums = Vec::new();
    for table in TABLES {
        let sql = format!(
            "select coalesce(md5(string_agg(t::text, '|' order by t::text)), '-') from {table} t"
        );
        sums.push(sqlx::query_scalar(&sql).fetch_one(&mut *database).await.expect("sum"));
    }
    sums
}

pub(crate) async fn count(database: &mut PgConnection, sql: &str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(database).await.expect(sql)
}

fn everything_old() -> LifecycleConfig {
    let periods = Periods { compress_after_days: 1, archive_after_days: 1, drop_after_days: 1 };
    LifecycleConfig { periods, ..LifecycleConfig::default() }
}

fn all_of(kind: &str, table: &str) -> Restore {
    Restore {
        kind: kind.to_owned(),
        table: table.to_owned(),
        days: ("2021-01-01".parse().expect("a day"), "2021-12-31".parse().expect("a day")),
        exchange: None,
        wanted: Wanted::default(),
    }
}

/// Brings everything back that is archived.
async fn restore_all(place: &Place, database: &mut PgConnection) -> u64 {
    let mut added = 0;
    for (kind, table) in archive::archived_kinds() {
        if archive::list(&place.store(), Some(kind.name())).await.expect("lists").is_empty() {
            continue;
        }
        let done =
            archive::restore(database, &place.store(), "test", &all_of(kind.name(), table)).await;
        added += done.expect("restores").added;
    }
    added
}

#[tokio::test(flavor = "multi_thread")]
async fn archive_drop_restore_leaves_row_identical_tables_s3() {
    let place = Place::new("life").await;
    let mut database = place.database().await;
    fill(&mut database).await;
    let before = sums(&mut database).await;
    let report = lifecycle::run(&mut database, &place.store(), "test", &everything_old())
        .await
        .expect("runs");
    assert_eq!(report.dropped_rows, 7_250);
    assert_eq!(
        count(&mut database, "select sum(rows)::bigint from tapeline_removals").await,
        7_250
    );
    assert_eq!(sums(&mut database).await, vec!["-"; TABLES.len()], "dropped");
    let again = place.database().await;
    drop(database);
    let mut database = again;
    let nothing = lifecycle::run(&mut database, &place.store(), "test", &everything_old())
        .await
        .expect("runs");
    assert_eq!((nothing.dropped_rows, nothing.archived_days), (0, 0), "nothing is archived twice");
    for checked in archive::verify_all(&place.store(), None).await.expect("reads") {
        assert_eq!(checked.fault, None);
    }
    assert_eq!(restore_all(&place, &mut database).await, 7_250);
    assert_eq!(sums(&mut database).await, before, "row-identical");
    assert_eq!(restore_all(&place, &mut database).await, 0, "restoring again adds nothing");
    assert_eq!(sums(&mut database).await, before);
    assert_eq!(
        count(&mut database, "select sum(rows)::bigint from tapeline_additions").await,
        7_250
    );
    drop(database);
    let mut database = place.database().await;
    let kept = lifecycle::run(&mut database, &place.store(), "test", &everything_old())
        .await
        .expect("runs");
    assert_eq!(kept.dropped_rows, 0, "what was restored stays for a while");
    place.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_after_their_day_was_dropped_join_it_in_the_archive_s3() {
    let place = Place::new("late").await;
    let mut database = place.database().await;
    fill(&mut database).await;
    let before = sums(&mut database).await[0].clone();
    database
        .execute("create table late as select * from market_data_trades where origin % 100 = 0")
        .await
        .expect("late");
    database.execute("delete from market_data_trades where origin % 100 = 0").await.expect("late");
    let store = place.store();
    let mut config = everything_old();
    config.keep_restored_days = 0;
    lifecycle::run(&mut database, &store, "test", &config).await.expect("runs");
    database.execute("insert into market_data_trades select * from late").await.expect("late");
    drop(database);
    let mut database = place.database().await;
    lifecycle::run(&mut database, &store, "test", &config).await.expect("runs");
    assert_eq!(count(&mut database, "select count(*) from market_data_trades").await, 0);
    let listed = archive::list(&store, Some("trade")).await.expect("lists");
    assert_eq!(listed.iter().map(|day| day.rows).sum::<u64>(), 6_000);
    let mut days: Vec<Day> = listed.iter().map(|listed| listed.day).collect();
    days.dedup();
    assert_eq!(days.len(), listed.len(), "one manifest a day");
    restore_all(&place, &mut database).await;
    assert_eq!(sums(&mut database).await[0], before);
    let balance =
        "select ((select sum(rows) from tapeline_additions where table_name = 'market_data_trades')
        - (select sum(rows) from tapeline_removals where table_name = 'market_data_trades'))";
    assert_eq!(
        count(&mut database, &format!("{balance}::bigint + 6000")).await,
        6_000,
        "the books balance"
    );
    place.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lifecycle_killed_at_fifty_points_loses_and_doubles_no_row_s3() {
    let place = Place::new("killed").await;
    let mut database = place.database().await;
    fill(&mut database).await;
    let before = sums(&mut database).await;
    let points = [
        "archive.reading",
        "archive.after_upload",
        "archive.before_manifest",
        "archive.after_manifest",
        "lifecycle.before_drop",
        "lifecycle.before_commit",
        "lifecycle.after_commit",
    ];
    let (mut killed, mut seed) = (0, 0);
    while killed < 50 {
        assert!(seed < 200, "only {killed} of {seed} runs were killed");
        let (point, pass) = (points[seed % points.len()], 1 + seed / points.len() % 3);
        seed += 1;
        let ended = place.tapeline(&["lifecycle", "run"], &format!("{point}:{pass}"));
        killed += usize::from(ended.status.signal() == Some(9));
        let there = "select (select count(*) from market_data_trades) + (select count(*) from market_data_ticker)
            + (select count(*) from market_data_orderbook) + (select count(*) from market_data_ohlcv)
            + (select count(*) from market_data_anomalies)
            + coalesce((select sum(rows) from tapeline_removals)::bigint, 0)
            - coalesce((select sum(rows) from tapeline_additions)::bigint, 0)";
        assert_eq!(count(&mut database, there).await, 7_250, "after {point}:{pass}");
        if count(&mut database, "select count(*) from market_data_trades").await == 0 {
            restore_all(&place, &mut database).await;
            database.execute("truncate tapeline_restores").await.expect("they may go again");
            place.empty();
            assert_eq!(sums(&mut database).await, before, "after {point}:{pass}");
        }
    }
    assert!(place.tapeline(&["lifecycle", "run"], "").status.success());
    assert!(place.tapeline(&["archive", "verify"], "").status.success());
    restore_all(&place, &mut database).await;
    assert_eq!(sums(&mut database).await, before);
    place.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_missing_or_damaged_is_named_and_nothing_is_dropped_s3() {
    let place = Place::new("damaged").await;
    let mut database = place.database().await;
    fill(&mut database).await;
    let before = sums(&mut database).await;
    let refused = |ended: &Output, what: &str| {
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!ended.status.success() && said.contains(what), "{what}: {said}");
    };
    assert!(
        place
            .tapeline(&["archive", "create", "--kind", "trade", "--date", "2021-04-17"], "")
            .status
            .success()
    );
    let object = place.objects("parquet").remove(0);
    let manifest = place.objects("json").remove(0);
    let (whole, said) =
        (std::fs::read(&object).expect("object"), std::fs::read(&manifest).expect("manifest"));
    for (path, body, what) in [
        (&object, whole[..whole.len() / 2].to_vec(), "the object was changed"),
        (
            &object,
            [&whole[..100], &[whole[100] ^ 1], &whole[101..]].concat(),
            "the object was changed",
        ),
        (&manifest, said[..said.len() / 2].to_vec(), "no manifest"),
        (
            &manifest,
            String::from_utf8_lossy(&said).replacen("\"rows\": 1", "\"rows\": 2", 1).into_bytes(),
            "changed",
        ),
    ] {
        std::fs::write(path, body).expect("damage");
        refused(&place.tapeline(&["lifecycle", "run"], ""), what);
        refused(&place.tapeline(&["restore", "--date", "2021-04-17"], ""), what);
        assert_eq!(sums(&mut database).await, before, "nothing is dropped: {what}");
        std::fs::write(&object, &whole).expect("repair");
        std::fs::write(&manifest, &said).expect("repair");
    }
    std::fs::remove_file(&object).expect("remove");
    refused(&place.tapeline(&["lifecycle", "run"], ""), "cannot read");
    std::fs::write(&object, &whole).expect("repair");
    let moved = place.folder.with_extension("moved");
    std::fs::rename(&place.folder, &moved).expect("rename");
    refused(&place.tapeline(&["lifecycle", "run"], ""), "is no folder");
    std::fs::rename(&moved, &place.folder).expect("rename");
    assert_eq!(sums(&mut database).await, before, "nothing is dropped");
    place.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_over_days_that_only_the_archive_holds_answers_from_it_o6() {
    let place = Place::new("query").await;
    let mut database = place.database().await;
    fill(&mut database).await;
    let query = Query {
        kind: "trade".into(),
        table: "market_data_trades".into(),
        exchange: Some("BINANCE".into()),
        wanted: Wanted {
            symbol: Some("S1-USD".into()),
            from: archive::parse_moment("2021-04-17T12:00:00Z").ok(),
            to: archive::parse_moment("2021-04-18T12:00:00Z").ok(),
        },
        limit: None,
    };
    let store = place.store();
    let mut of_table = Vec::new();
    let answered = archive::query(&mut database, Some(&store), &query, Format::Csv, &mut of_table)
        .await
        .expect("answers");
    assert!(answered.from_table > 100 && answered.archived_days.is_empty());
    lifecycle::run(&mut database, &store, "test", &everything_old()).await.expect("runs");
    let mut of_archive = Vec::new();
    let archived =
        archive::query(&mut database, Some(&store), &query, Format::Csv, &mut of_archive)
            .await
            .expect("answers");
    assert_eq!((archived.from_archive, archived.from_table), (answered.from_table, 0));
    assert_eq!(archived.archived_days.len(), 2);
    let sorted = |bytes: &[u8]| {
        let mut lines: Vec<_> = String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&of_archive), sorted(&of_table), "the same rows, digit for digit");
    restore_all(&place, &mut database).await;
    let mut of_both = Vec::new();
    archive::query(&mut database, Some(&store), &query, Format::Csv, &mut of_both)
        .await
        .expect("answers");
    assert_eq!(sorted(&of_both), sorted(&of_table), "what was restored is not told twice");
    place.finish().await;
}
