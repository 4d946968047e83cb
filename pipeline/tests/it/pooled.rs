//! Everything through PgBouncer (O5): sessions for stages, transactions for readers.

use std::time::Duration;

use futures_util::future::try_join_all;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tapeline::config::{Config, DatabaseConfig};
use tapeline::database::read_options;
use tapeline::doctor::{self, Limits, Scope};
use tapeline::wiring::StageName;

use crate::common::{Pipeline, Process, eventually, replace_last_segment};
use crate::store::publish;

/// The session entry of the PgBouncer that `scripts/services up pgbouncer` starts.
fn pgbouncer(database: &str) -> String {
    let url = std::env::var("TAPELINE_PGBOUNCER_URL")
        .unwrap_or_else(|_| "postgres://tapeline:tapeline@127.0.0.1:6433/tapeline".to_owned());
    replace_last_segment(&url, database)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_pgbouncer_a_store_copies_takes_over_from_a_frozen_owner_and_locks_hold_o5() {
    let pipeline = Pipeline::new("pooled").await;
    let (_, name) = pipeline.context.config.database.url.rsplit_once('/').expect("a path");
    let url = pgbouncer(name);
    let pooled = |config: &mut Config| {
        config.database.url.clone_from(&url);
        config.store.takeover_ms = 500;
        config.store.connections = 1;
    };
    let validate = pipeline.start(StageName::Validate);
    publish(&pipeline, 0..2_000).await;
    let mut frozen = pipeline.command(&["store"], pooled);
    let frozen = Process(
        frozen.env("TAPELINE_FAILPOINTS", "store.mid_copy:1:stop").spawn().expect("starts"),
    );
    let status = format!("/proc/{}/status", frozen.0.id());
    eventually("the owner freezes in mid-copy", || async {
        std::fs::read_to_string(&status).is_ok_and(|status| status.contains("State:\tT"))
    })
    .await;
    // The session of the frozen member lasts 6 s; then its partitions are another's.
    let context = pipeline.member(pooled);
    let successor = pipeline.start_member(&context, StageName::Store);
    publish(&pipeline, 2_000..3_000).await;
    let stored = || pipeline.count("select count(*) from market_data_trades");
    eventually("the successor stores everything", || async { stored().await == 3_000 }).await;
    successor.stop().await;
    validate.stop().await;
    drop(frozen);
    let ledger =
        "select coalesce(sum(stored), 0)::bigint from tapeline_ledger where topic like '%.trade'";
    assert_eq!(pipeline.count(ledger).await, 3_000, "nothing is lost or doubled");

    // An advisory lock lasts as long as its client's session, not as long as the server's connection.
    let taken = "select pg_try_advisory_lock(4711)";
    let mut first = PgConnection::connect(&url).await.expect("pgbouncer");
    let mut second = PgConnection::connect(&url).await.expect("pgbouncer");
    let lock = async |on: &mut PgConnection| {
        sqlx::query_scalar::<_, bool>(taken).fetch_one(on).await.expect("an answer")
    };
    assert!(lock(&mut first).await && !lock(&mut second).await);
    first.close().await.expect("closed");
    second.close().await.expect("closed");
    eventually("the lock goes with its session", || async {
        lock(&mut PgConnection::connect(&url).await.expect("pgbouncer")).await
    })
    .await;
    pipeline.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_on_shared_server_connections_never_meet_each_others_statements_o5() {
    let config =
        DatabaseConfig { read_url: Some(pgbouncer("tapeline_read")), ..DatabaseConfig::default() };
    // More clients than the entry has server connections, so that they take turns on them.
    let readers = (0..60_i32).map(|reader| {
        let config = config.clone();
        async move {
            let mut own =
                PgConnection::connect_with(&read_options(&config).expect("a url")).await?;
            let mut backends = Vec::new();
            for round in 0..20_i32 {
                let mut transaction = own.begin().await?;
                let sql = format!("select $1 + $2 + {}, pg_backend_pid()", reader % 3);
                let (sum, backend): (i32, i32) = sqlx::query_as(&sql)
                    .bind(reader * 1_000)
                    .bind(round)
                    .fetch_one(&mut *transaction)
                    .await?;
                assert_eq!(sum, reader * 1_000 + round + reader % 3);
                backends.push(backend);
                transaction.commit().await?;
            }
            own.close().await?;
            Ok::<_, sqlx::Error>(backends)
        }
    });
    let mut backends: Vec<i32> = try_join_all(readers).await.expect("answers").concat();
    backends.sort_unstable();
    backends.dedup();
    assert!(backends.len() < 60, "{} server connections for 60 clients", backends.len());

    // The doctor's questions hold several statements each.
    let examined = Config { database: config.clone(), ..Config::default() };
    let report = doctor::run(&examined, &Scope::default(), &Limits::default()).await;
    let report = format!("{:?}", report.expect("examines"));
    assert!(report.contains("are in use"), "{report}");
    assert!(!report.contains("prepared statement"), "{report}");

    // A command that reads works there as well; what it would write is refused by the database.
    let mut reader = tapeline::database::reader(&config).await.expect("connects");
    let refused = reader.execute("create table not_here (id int)").await;
    assert!(refused.is_err_and(|error| error.to_string().contains("read-only transaction")));
    tokio::time::timeout(Duration::from_secs(30), reader.close())
        .await
        .expect("in time")
        .expect("closed");
}
