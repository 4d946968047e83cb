//! `tapeline doctor` (O2, O4): each finding on a database that really has it.
//!
//! Settings, slots and roles belong to a whole server, so this has one of its own.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use sqlx::{Connection, Executor, PgConnection};
use tapeline::config::Config;
use tapeline::doctor::{self, Limits, Machine, Report, Scope, Severity};
use tapeline::migrate::{self, roles};

use crate::cluster::Cluster;
use crate::common::eventually;

/// Limits that a small database reaches.
fn low() -> Limits {
    Limits {
        slow_ms: 5.0,
        slow_calls: 3,
        idle_index_bytes: 1,
        dead_rows: 100,
        idle_seconds: 0,
        records: 100,
        ..Limits::default()
    }
}

fn scope() -> Scope {
    Scope { history_hours: 24, ..Scope::default() }
}

fn config(cluster: &Cluster, url: &str) -> Config {
    let mut config = Config::default();
    url.clone_into(&mut config.database.url);
    config.redis.url = cluster.redis_url();
    "test".clone_into(&mut config.pipeline.id);
    config
}

/// The worst finding of each name, and all its messages and advice in one text.
fn by_name(report: &Report) -> BTreeMap<&str, (Severity, String)> {
    let mut found: BTreeMap<&str, (Severity, String)> = BTreeMap::new();
    for finding in &report.findings {
        let entry = found.entry(finding.name).or_default();
        entry.0 = entry.0.max(finding.severity);
        entry.1.push_str(&finding.message);
        finding.advice.iter().for_each(|advice| entry.1.push_str(&advice.line));
    }
    found
}

#[track_caller]
fn has(report: &Report, name: &str, severity: Severity, what: &str) {
    let found = by_name(report);
    let (is, said) = found.get(name).unwrap_or_else(|| panic!("no {name}: {:?}", found.keys()));
    assert!(*is == severity && said.contains(what), "{name} is {is:?}: {said}");
}

/// Everything that may be wrong with the data.
async fn spoil(database: &mut PgConnection) {
    database
        .execute(
            "insert into market_data_gaps values
                 ('KRAKEN', 'BTC-USD', 'trade', now() - interval '1 hour', null, 'opened', 'disconnect', null, 't', 0, 1),
                 ('KRAKEN', 'BTC-USD', 'book', now() - interval '2 hours', now() - interval '1 hour', 'ended', 'sequence', null, 't', 0, 2);
             insert into tapeline_ledger (pipeline, topic, topic_id, partition, first_offset, last_offset, first_origin, last_origin,
                 stored, duplicate, conflict, not_stored, quarantined, control, skipped, repeated, by_day, rules)
                 values ('test', 'md.trade', 'x', 0, 0, 999, 0, 999, 800, 190, 1, 0, 9, 0, 0, 0, '{}', '1');
             insert into market_data_anomalies
                 select now(), 'md.trade.raw', 0, n, 'KRAKEN', 'BTC-USD', 'trade', array['late'], '', now() from generate_series(1, 50) n;
             insert into market_data_ohlcv (time, exchange, symbol, timeframe, source, open, high, low, close, volume, quote_volume,
                 trades_count, final, revision, close_time, receive_time)
                 select t, 'KRAKEN', 'BTC-USD', '1m', 'tapeline', 100, case when n = 100 then 250 else 100.1 end, 99.9, 100 + n % 3 / 10.0, 1, 100,
                     1, true, 0, t + interval '1 minute', t
                 from generate_series(1, 300) n, lateral (select now() - n * interval '1 minute' t) x;
             insert into market_data_trades
                 select timestamptz '2021-04-17T00:00:00Z' + n * interval '1 second', 'KRAKEN', 'BTC-USD', n::text, 100, 1, 'buy', null, null, n,
                     now(), 0, n from generate_series(1, 100) n;
             create table dead (number integer) with (autovacuum_enabled = off);
             insert into dead select generate_series(1, 1000);
             delete from dead where number > 300;
             select pg_create_physical_replication_slot('nobody', true);
             alter database tapeline set synchronous_commit = 'off'",
        )
        .await
        .expect("spoilt");
    for statement in ["alter system set jit = 'on'", "select pg_reload_conf()"] {
        database.execute(statement).await.expect("spoilt");
    }
    for _ in 0..4 {
        database.execute("select pg_sleep(0.01)").await.expect("sleeps");
    }
}

fn tapeline(config: &Config, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tapeline"))
        .args(["doctor", "--json"])
        .args(more)
        // That of the services all other tests use, as `scripts/services env` sets it.
        .env_remove("TAPELINE_PGBOUNCER_URL")
        .env("TAPELINE__DATABASE__URL", &config.database.url)
        .env("TAPELINE__REDIS__URL", &config.redis.url)
        .output()
        .expect("runs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "services of its own: `make test-all`"]
async fn the_doctor_finds_what_is_wrong_says_what_it_cannot_see_and_changes_only_what_is_safe_o2_o4()
 {
    let cluster = Cluster::new("doctor", &["postgres", "redis"]);
    let superuser = cluster.superuser();
    let mut database = PgConnection::connect(&superuser).await.expect("superuser");
    let owner = config(&cluster, &cluster.url("tapeline", "tapeline"));
    let config = config(&cluster, &superuser);

    let report = doctor::run(&config, &scope(), &Limits::default()).await.expect("examines");
    has(&report, "migrations", Severity::Critical, "tapeline migrate up");
    assert_eq!(tapeline(&config, &[]).status.code(), Some(2), "critical");

    migrate::up(&owner.database.url).await.expect("migrations");
    let report = doctor::run(&config, &scope(), &Limits::default()).await.expect("examines");
    assert!(report.severity < Severity::Warning, "a new database is well: {report:?}");
    let well = tapeline(&config, &[]);
    let said = String::from_utf8_lossy(&well.stdout);
    assert_eq!(well.status.code(), Some(0), "a new database is well: {said}");
    let mut gone = config.clone();
    "redis://127.0.0.1:1/0".clone_into(&mut gone.redis.url);
    let report = doctor::run(&gone, &scope(), &Limits::default()).await.expect("examines");
    has(&report, "redis", Severity::Critical, "cannot be reached");
    let nowhere = Scope { pgbouncer: Some("postgres://a:b@127.0.0.1:1/x".to_owned()), ..scope() };
    let report = doctor::run(&config, &nowhere, &Limits::default()).await.expect("examines");
    has(&report, "connections", Severity::Warning, "could not be examined");

    spoil(&mut database).await;
    let client = redis::Client::open(config.redis.url.as_str()).expect("a url");
    let mut cache = client.get_multiplexed_async_connection().await.expect("redis");
    let mut set = redis::cmd("CONFIG");
    set.arg(&["SET", "maxmemory", "0"]);
    set.query_async::<()>(&mut cache).await.expect("set");
    let mut idle = PgConnection::connect(&superuser).await.expect("superuser");
    idle.execute("begin; select 1").await.expect("idle");
    let machine = Some(Machine { memory: 1 << 40, cores: 64 });
    let wide = Scope { machine, ..scope() };
    eventually("the statistics have arrived", async || {
        let report = doctor::run(&config, &wide, &low()).await.expect("examines");
        let found = by_name(&report);
        found.contains_key("dead rows") && found["slow statements"].0 > Severity::Ok
    })
    .await;
    let report = doctor::run(&config, &wide, &low()).await.expect("examines");
    names_everything(&report);
    assert_eq!(tapeline(&config, &[]).status.code(), Some(1), "warnings");
    let reader = reader(&cluster, &config, &mut database).await;
    applies_only_what_is_safe(&config, &reader, &wide, &mut database).await;
    database.execute("select pg_drop_replication_slot('nobody')").await.expect("drops");
}

/// Each fault that [`spoil`] made, and what was there before.
fn names_everything(report: &Report) {
    use Severity::{Advice, Critical, Ok, Warning};
    for (name, severity, what) in [
        ("gaps", Warning, "1 holes are open, 1 of 3600 s"),
        ("duplicates", Warning, "190 of 1000"),
        ("conflicts", Warning, "1 of 1000"),
        ("quarantined", Warning, "tapeline quarantine list"),
        ("late", Warning, "50 of 1000"),
        ("price outliers", Warning, "KRAKEN BTC-USD 250 at "),
        ("archive lag", Warning, "set archive.url"),
        ("dead rows", Warning, "vacuum (analyze) public.dead"),
        ("slow statements", Warning, "pg_sleep"),
        ("idle transactions", Warning, "1 transactions"),
        ("replication slots", Warning, "nobody"),
        ("index use", Advice, "idx_anomalies_exchange_symbol_time"),
        ("synchronous_commit", Warning, "alter database tapeline reset synchronous_commit;"),
        ("jit", Advice, "alter system set jit = 'off'"),
        ("shared_buffers", Advice, "alter system set shared_buffers = '262144MB'; -- then restart"),
        ("effective_cache_size", Advice, "786432MB"),
        ("redis maxmemory", Advice, "maxmemory 131072mb"),
        ("redis maxmemory-policy", Advice, "volatile-ttl"),
        ("chunks", Ok, "market_data_trades: 1 chunks"),
        ("migrations", Ok, "all are applied"),
    ] {
        has(report, name, severity, what);
    }
    assert!(report.severity == Warning && report.exit_code() == 1 && Critical > Warning);
}

/// A reader sees the data, and is told what it does not see; its configuration.
async fn reader(cluster: &Cluster, config: &Config, database: &mut PgConnection) -> Config {
    roles::create(database).await.expect("roles");
    roles::grant(database).await.expect("rights");
    database.execute("alter role tapeline_reader password 'reader'").await.expect("password");
    let mut reader = config.clone();
    reader.database.url = cluster.url("tapeline_reader", "reader");
    let seen = doctor::run(&reader, &scope(), &low()).await.expect("examines");
    has(&seen, "gaps", Severity::Warning, "1 holes are open");
    has(&seen, "price outliers", Severity::Warning, "250");
    assert!(
        seen.unseen.iter().any(|unseen| unseen.what == "transactions of other roles"),
        "{:?}",
        seen.unseen
    );
    reader
}

/// What is safe is set by who may, and nothing else.
async fn applies_only_what_is_safe(
    config: &Config,
    reader: &Config,
    wide: &Scope,
    database: &mut PgConnection,
) {
    let refused = doctor::run(reader, &Scope { apply: true, ..wide.clone() }, &low())
        .await
        .expect("examines");
    let outcomes = |report: &Report| -> Vec<String> {
        let advice = report.findings.iter().flat_map(|finding| &finding.advice);
        advice
            .filter(|advice| advice.line.starts_with("alter"))
            .filter_map(|advice| advice.applied.clone())
            .collect()
    };
    assert!(outcomes(&refused).iter().all(|how| how.contains("permission denied")), "{refused:?}");
    let applied = doctor::run(config, &Scope { apply: true, ..wide.clone() }, &low())
        .await
        .expect("examines");
    assert!(outcomes(&applied).iter().all(|how| how == "applied"), "{applied:?}");
    let set: Vec<String> = sqlx::query_scalar(
        "select name from pg_file_settings where sourcefile like '%auto.conf' and name in
             ('effective_cache_size', 'jit', 'shared_buffers') and setting in ('786432MB', 'off', '262144MB') order by 1",
    )
    .fetch_all(database)
    .await
    .expect("settings");
    assert_eq!(set, ["effective_cache_size", "jit"], "shared_buffers needs a restart, and stays");
    let after = doctor::run(config, wide, &low()).await.expect("examines");
    has(&after, "redis maxmemory-policy", Severity::Advice, "volatile-ttl");
    has(&after, "synchronous_commit", Severity::Warning, "reset synchronous_commit;");
    assert!(!by_name(&after).contains_key("effective_cache_size"), "the server was told");
}
