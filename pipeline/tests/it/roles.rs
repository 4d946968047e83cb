//! Roles (O7): the stages work with the least they need, and are refused the rest.
//!
//! Roles belong to a whole cluster, so this has one of its own.

use sqlx::{Connection, Executor, PgConnection};
use tapeline::migrate::{self, roles};
use tapeline::wiring::{Context, StageName};
use tapeline_schemas::Control;
use tapeline_schemas::{Kind, Micros};

use crate::cluster::Cluster;
use crate::common::{Pipeline, eventually};
use crate::look::{self, trade};

const MINUTE: i64 = 60_000_000;
const START: i64 = 1_699_920_000_000_000;

fn password(login: &str) -> String {
    format!("{login}-$ecret+1")
}

async fn login(cluster: &Cluster, role: &str) -> PgConnection {
    let password = password(role).replace('$', "%24").replace('+', "%2B");
    PgConnection::connect(&cluster.url(role, &password)).await.expect(role)
}

/// Who tries what. All of it has to be refused for want of a right.
const FORBIDDEN: [(&str, &[&str]); 3] = [
    (
        "tapeline_store",
        &[
            "delete from market_data_trades",
            "truncate market_data_trades",
            "drop table orders",
            "alter table orders add column note text",
            "create table mine (id int)",
            "update tapeline_ledger set stored = 0",
            "delete from tapeline_ledger",
            "delete from tapeline_fence",
            "select * from tapeline_candle_outbox",
            "select * from system_config",
            "select api_secret from exchange_config",
            "insert into _sqlx_migrations select * from _sqlx_migrations",
            "select drop_chunks('market_data_trades', now())",
            "create role mine",
            "alter role timeseries_admin login",
            "set role timeseries_admin",
            "copy orders to program 'cat'",
        ],
    ),
    (
        "tapeline_candles",
        &[
            "insert into market_data_trades select * from market_data_trades",
            "update market_data_trades set price = 1",
            "delete from market_data_ohlcv",
            "update tapeline_fence set next_offset = 0",
            "update tapeline_ledger set stored = 0",
            "select * from orders",
            "select * from current_positions",
            "select * from exchange_config",
            "create temp table mine (id int)",
            "create table mine (id int)",
        ],
    ),
    (
        "tapeline_reader",
        &[
            "insert into orders select * from orders",
            "update orders set amount = 1",
            "delete from market_data_trades",
            "update tapeline_fence set next_offset = 0",
            "select * from system_config",
            "select * from exchange_config",
            "create temp table mine (id int)",
            "select tapeline_recent_index('1 day')",
            "select tapeline_market_data_indexes(true)",
        ],
    ),
];

/// Insufficient privilege.
const REFUSED: &str = "42501";

async fn each_is_refused(cluster: &Cluster) {
    for (role, statements) in FORBIDDEN {
        let mut connection = login(cluster, role).await;
        for statement in statements {
            let mut transaction = connection.begin().await.expect("begin");
            let tried = transaction.execute(*statement).await;
            let code = tried.err().and_then(|error| {
                error
                    .as_database_error()
                    .and_then(|error| error.code().map(|code| code.to_string()))
            });
            assert_eq!(code.as_deref(), Some(REFUSED), "{role}: {statement}");
            transaction.rollback().await.expect("rollback");
        }
    }
}

fn as_role(pipeline: &Pipeline, cluster: &Cluster, role: &str) -> Context {
    let password = password(role).replace('$', "%24").replace('+', "%2B");
    let mut context = pipeline.context.clone();
    let mut config = (*context.config).clone();
    config.database.url = cluster.url(role, &password);
    context.config = std::sync::Arc::new(config);
    context
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stages_work_under_logins_that_are_refused_everything_else_o7() {
    let cluster = tokio::task::block_in_place(|| Cluster::new("roles", &["postgres"]));
    let owner = cluster.url("tapeline", "tapeline");
    let pipeline = Pipeline::with("roles", |config| config.database.url = owner.clone()).await;
    let mut superuser = PgConnection::connect(&cluster.superuser()).await.expect("superuser");
    for _ in 0..2 {
        roles::create(&mut superuser).await.expect("roles");
        let known = |variable: &str| {
            let login = variable.strip_prefix("TAPELINE_PASSWORD_").expect("prefix").to_lowercase();
            Some(password(&login))
        };
        let set = roles::set_passwords(&mut superuser, known).await.expect("passwords");
        assert_eq!(set, roles::LOGINS);
    }
    let short = roles::set_passwords(&mut superuser, |_| Some("short".to_owned())).await;
    assert!(short.is_err());
    // The owner of the tables gives the rights: with every `migrate up`.
    let mut database = PgConnection::connect(&owner).await.expect("owner");
    let done = migrate::configure(&mut database, &pipeline.context.config.database).await;
    assert!(done.expect("configured").contains(&"rights of the roles".to_owned()));

    let validate = pipeline.start(StageName::Validate);
    let store =
        pipeline.start_member(&as_role(&pipeline, &cluster, "tapeline_store"), StageName::Store);
    let candles = pipeline
        .start_member(&as_role(&pipeline, &cluster, "tapeline_candles"), StageName::Candles);
    let trades = |from: i64| {
        (from..from + 40)
            .map(|id| trade("TEST", "A-USD", id, "100.5", START + id * MINUTE / 4))
            .collect::<Vec<_>>()
    };
    look::publish(&pipeline, &trades(0)).await;
    let publisher = pipeline.context.publisher().expect("publisher");
    let through =
        Control::Complete { venue: "TEST".to_owned(), through: Micros(START + 20 * MINUTE) };
    publisher.broadcast(Kind::Trade, &through).await.expect("control");
    // One that comes late: the reviser and its outbox need their rights too.
    look::publish(&pipeline, &[trade("TEST", "A-USD", 1_000, "100.6", START + MINUTE / 8)]).await;
    publisher.delivered().await.expect("delivered");
    eventually("candles are stored, one of them revised", || async {
        let sql = "select count(*) from market_data_ohlcv where timeframe = '1m' having max(revision) > 0";
        let mut database = pipeline.database().await;
        let count: Option<i64> =
            sqlx::query_scalar(sql).fetch_optional(&mut database).await.expect("count");
        count.is_some_and(|count| count >= 10)
    })
    .await;
    eventually("and sent", || async {
        pipeline.count("select count(*) from tapeline_candle_outbox").await == 0
    })
    .await;
    assert_eq!(pipeline.count("select count(*) from market_data_trades").await, 41);

    let mut reader = login(&cluster, "tapeline_reader").await;
    migrate::check(&mut reader).await.expect("a reader can see that all is applied");
    for sql in [
        "select count(*) from market_data",
        "select count(*) from mv_ohlcv_1h",
        "select count(*) from tapeline_ledger",
    ] {
        sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut reader).await.expect(sql);
    }
    each_is_refused(&cluster).await;
    // A second look at the same rights: nothing of it depends on who had some before.
    superuser.execute("grant delete on market_data_trades to tapeline_store; grant select on exchange_config to public").await.expect("granted");
    roles::grant(&mut database).await.expect("rights");
    each_is_refused(&cluster).await;

    for stage in [candles, store, validate] {
        stage.stop().await;
    }
    pipeline.finish().await;
}
