//! Where a test of the archive takes place, and what it archives.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{Connection, Executor, PgConnection};
use tapeline::archive::{self, Restore, Store, Wanted};
use tapeline::config::{ArchiveConfig, LifecycleConfig, Periods};
use tapeline::migrate;

static NEXT: AtomicU32 = AtomicU32::new(0);
pub(super) const TABLES: [&str; 9] = [
    "market_data_trades",
    "market_data_ticker",
    "market_data_orderbook",
    "market_data_ohlcv",
    "market_data_anomalies",
    "option_data",
    "supply_demand",
    "predictions",
    "portfolio_status",
];
/// Rows that [`fill`] makes.
pub(super) const ROWS: i64 = 7_430;

/// A database and a folder that only one test uses.
pub(crate) struct Place {
    admin_url: String,
    name: String,
    pub(crate) url: String,
    pub(super) folder: PathBuf,
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

    pub(super) fn store(&self) -> Store {
        Store::open(&self.archive()).expect("a folder")
    }

    /// The command as an operator types it.
    pub(super) fn tapeline(&self, arguments: &[&str], failpoint: &str) -> Output {
        let mut command = self.command(arguments);
        command.env("TAPELINE_FAILPOINTS", failpoint).output().expect("runs")
    }

    /// The same, not yet run.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tapeline"));
        command
            .args(arguments)
            .env("TAPELINE__DATABASE__URL", &self.url)
            .env("TAPELINE__ARCHIVE__URL", self.archive().url.unwrap_or_default())
            .env("TAPELINE__LIFECYCLE__PERIODS__COMPRESS_AFTER_DAYS", "1")
            .env("TAPELINE__LIFECYCLE__PERIODS__ARCHIVE_AFTER_DAYS", "1")
            .env("TAPELINE__LIFECYCLE__PERIODS__DROP_AFTER_DAYS", "1");
        command
    }

    /// Every object of the archive.
    pub(super) fn objects(&self, extension: &str) -> Vec<PathBuf> {
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
    pub(super) fn empty(&self) {
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
        select t, case when n % 3 = 0 then 'KRAKEN' when n % 60 = 1 then 'UPBIT' else 'BINANCE' end, 'S' || n % 7 || '-USD', n::text,
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
        from generate_series(1, 50) n, lateral (select '2021-04-19T00:00:00Z'::timestamptz + n * interval '1 hour' t) x;
        insert into option_data (time, exchange, symbol, event_id, underlying, strike_price, expiry_date, option_type,
            iv, delta, receive_time, origin_partition, origin)
        select t, 'DERIBIT', 'BTC-USD-' || n, n::text, 'BTC-USD', 50000 + n, '2021-06-25T08:00:00Z', 'call', trim_scale(n / 7.0), -0.5, t, 0, n
        from generate_series(1, 80) n, lateral (select '2021-04-18T00:00:00Z'::timestamptz + n * interval '40 minutes' t) x;
        insert into supply_demand
        select '2021-04-17T00:00:00Z'::timestamptz + n * interval '1 hour', 'KRX', 'SAMSUNG-KRW', n, -n, 0.5, now(), now(), 0, n
        from generate_series(1, 40) n;
        insert into predictions
        select '2021-04-17T00:00:00Z'::timestamptz + n * interval '1 hour', 'UPBIT', 'BTC-KRW', 'm' || n % 2, 'price', n, 0.25, now(), 0, n
        from generate_series(1, 30) n;
        insert into portfolio_status
        select '2021-04-17T00:00:00Z'::timestamptz + n * interval '1 hour', md5(n::text)::uuid, 'spot', n, 1, 2, -3, now(), 0, n
        from generate_series(1, 30) n;"#,
        )
        .await
        .expect("rows");
}

pub(super) async fn sums(database: &mut PgConnection) -> Vec<String> {
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

pub(super) fn everything_old() -> LifecycleConfig {
    let periods = Periods {
        compact_after_days: 1,
        compress_after_days: 1,
        archive_after_days: 1,
        drop_after_days: 1,
    };
    LifecycleConfig { periods, ..LifecycleConfig::default() }
}

pub(super) fn all_of(kind: &str, table: &str) -> Restore {
    Restore {
        kind: kind.to_owned(),
        table: table.to_owned(),
        days: ("2021-01-01".parse().expect("a day"), "2021-12-31".parse().expect("a day")),
        exchange: None,
        wanted: Wanted::default(),
    }
}

/// Brings everything back that is archived.
pub(super) async fn restore_all(place: &Place) -> u64 {
    let mut added = 0;
    for (kind, table) in archive::archived_kinds() {
        if archive::list(&place.store(), Some(kind.name())).await.expect("lists").is_empty() {
            continue;
        }
        let done =
            archive::restore(&place.url, &place.store(), "test", &all_of(kind.name(), table)).await;
        added += done.expect("restores").added;
    }
    added
}
