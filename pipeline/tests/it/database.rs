//! What the migrations make (S7, T13), with nothing but a database.

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{Connection, Executor, PgConnection};
use tapeline::config::DatabaseConfig;
use tapeline::migrate::{self, catalog, document};
use tapeline::secrets::{self, Keys};
use tapeline::settings;

use crate::common::{admin_url, replace_last_segment, template};

const CATALOG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sql/catalog.tsv");
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/database.md");
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A migrated database of a test's own.
struct Database {
    name: String,
    url: String,
}

impl Database {
    async fn new() -> Database {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_database_{}_{number}", std::process::id());
        let mut admin = PgConnection::connect(&admin_url()).await.expect("database");
        let create = format!("create database {name} template {}", template());
        admin.execute(create.as_str()).await.expect("create database");
        let url = replace_last_segment(&admin_url(), &name);
        migrate::up(&url).await.expect("migrations");
        Database { name, url }
    }

    async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.expect("database")
    }

    async fn finish(self) {
        let mut admin = PgConnection::connect(&admin_url()).await.expect("database");
        let drop = format!("drop database {} with (force)", self.name);
        admin.execute(drop.as_str()).await.expect("drop database");
    }
}

/// Holds a file of the repository against what a command prints; with TAPELINE_BLESS it is written instead.
fn is_current(file: &str, printed: &str, command: &str) {
    if std::env::var_os("TAPELINE_BLESS").is_some() {
        std::fs::write(file, printed).expect("written");
    }
    let committed = std::fs::read_to_string(file).unwrap_or_default();
    assert!(committed == printed, "{file} is not what `{command}` prints: make database-docs");
}

#[tokio::test]
async fn the_committed_catalog_and_document_are_what_the_migrations_make_s7() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    let live = catalog::load(&mut connection).await.expect("catalog");
    // The Community edition's differ, in what `drift` knows.
    if !migrate::is_community(&mut connection).await.expect("licence") {
        is_current(CATALOG, &catalog::to_text(&live), "tapeline migrate catalog");
        is_current(DOCUMENT, &document::render(&live), "tapeline migrate docs");
    }
    let uncommented: Vec<_> = live
        .keys()
        .filter(|key| matches!(key.kind.as_str(), "table" | "view" | "column" | "function"))
        .filter(|key| {
            let mut comment = (*key).clone();
            comment.kind = "comment".to_owned();
            !live.contains_key(&comment)
        })
        .collect();
    assert!(uncommented.is_empty(), "without a comment: {uncommented:?}");
    connection.close().await.expect("closed");
    database.finish().await;
}

/// Each tampering, and what the check says of it.
const TAMPERINGS: [(&str, &str); 18] = [
    ("drop table orders", "table orders is missing"),
    ("create table orders_old (id int)", "table orders_old is not of the migrations"),
    ("alter table orders drop column fee", "column orders.fee is missing"),
    ("alter table orders add column note text", "column orders.note is not of the migrations"),
    (
        "alter table orders alter column fee type text",
        "column orders.fee differs: `text`, expected `numeric`",
    ),
    ("alter table orders alter column amount drop not null", "column orders.amount differs"),
    ("alter table orders alter column fee set default 0", "column orders.fee differs"),
    (
        "alter table orders alter column symbol type text collate \"default\"",
        "column orders.symbol differs",
    ),
    (
        "drop index idx_trades_exchange_symbol_time",
        "index market_data_trades.idx_trades_exchange_symbol_time is missing",
    ),
    ("create index mine on orders (symbol)", "index orders.mine is not of the migrations"),
    (
        "drop index idx_orders_created_at; create index idx_orders_created_at on orders (created_at)",
        "index orders.idx_orders_created_at differs",
    ),
    (
        "alter table orders drop constraint orders_side_check",
        "constraint orders.orders_side_check is missing",
    ),
    ("drop view market_data", "view market_data is missing"),
    (
        "create or replace view stock_prices as select time, symbol, exchange, open, high, low, close, volume, \
        quote_volume as trading_value from market_data_ohlcv where timeframe = '5m' and source = 'tapeline'",
        "view stock_prices differs",
    ),
    ("comment on column orders.fee is 'other'", "comment on orders.fee differs"),
    ("comment on table orders is null", "comment on orders is missing"),
    (
        "select set_chunk_time_interval('supply_demand', interval '1 day')",
        "dimension supply_demand.date differs",
    ),
    (
        "create function f() returns trigger language plpgsql as 'begin return new; end'; \
        create trigger mine before insert on orders for each row execute function f()",
        "trigger orders.mine is not of the migrations",
    ),
];

#[tokio::test]
async fn every_difference_between_files_and_database_is_named_s7() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    assert_eq!(catalog::drift(&mut connection).await.expect("drift"), Vec::<String>::new());
    // What configuration makes is no drift, and neither is data.
    let config = DatabaseConfig { market_data_indexes: true, recent_days: 1, ..Default::default() };
    migrate::configure(&mut connection, &config).await.expect("configured");
    let insert =
        "insert into supply_demand values (now(), 'KRX', 'A-KRW', 1, 2, 3, now(), now(), 0, 0)";
    connection.execute(insert).await.expect("inserted");
    assert_eq!(catalog::drift(&mut connection).await.expect("drift"), Vec::<String>::new());
    for (tampering, named) in TAMPERINGS {
        let mut transaction = connection.begin().await.expect("begin");
        transaction.execute(tampering).await.expect(tampering);
        let drift = catalog::drift(&mut transaction).await.expect("drift");
        let found = drift.iter().any(|difference| difference.starts_with(named));
        assert!(found && drift.len() <= 3, "{tampering}: {drift:?}");
        transaction.rollback().await.expect("rollback");
    }
    connection.close().await.expect("closed");
    database.finish().await;
}

/// Rows of a realistic size, made in place: 20 venues, 50 symbols each.
const ROWS: [&str; 8] = [
    "insert into market_data_trades select timestamptz '2026-01-05' + g * interval '1 second', 'V' || g % 20,
        'S' || g % 50 || '-USD', g::text, 100, 1, 'buy', null, null, g, timestamptz '2026-01-05', 0, g
        from generate_series(1, 150000) g",
    "insert into market_data_ticker select timestamptz '2026-01-05' + g * interval '1 second', 'V' || g % 20,
        'S' || g % 50 || '-USD', g::text, 100, 99, 101, 1, 1, 1, 1, 1, 1, timestamptz '2026-01-05', 0, g
        from generate_series(1, 100000) g",
    "insert into market_data_ohlcv select timestamptz '2026-01-05' + (g / 1000) * interval '1 minute', 'V' || g % 20,
        'S' || g / 20 % 50 || '-USD', t, 'tapeline', 1, 1, 1, 1, 1, 1, 1, true, 0,
        timestamptz '2026-01-05' + (g / 1000 + 1) * interval '1 minute', timestamptz '2026-01-05'
        from generate_series(0, 79999) g, (values ('1m'), ('5m')) f (t)",
    "insert into supply_demand select timestamptz '2026-01-05' + (g / 1000) * interval '1 day', 'KRX',
        'S' || g % 1000 || '-KRW', 1, 2, 3, timestamptz '2026-01-05', timestamptz '2026-01-05', 0, g
        from generate_series(0, 49999) g",
    "insert into predictions select timestamptz '2026-01-05' + g * interval '1 minute', 'V' || g % 20,
        'S' || g % 50 || '-USD', 'm' || g % 40, 'price', 1, 0.5, timestamptz '2026-01-05', 0, g
        from generate_series(1, 40000) g",
    "insert into portfolio_status select timestamptz '2026-01-05' + g * interval '1 minute', md5((g % 500)::text)::uuid,
        'CRYPTO', 1, 1, 1, 1, timestamptz '2026-01-05', 0, g from generate_series(1, 40000) g",
    "insert into current_positions select 'V' || g % 20, 'S' || g || '-USD', side, 1, 1, null, null, null, null, null,
        null, now(), now(), now(), 0, g from generate_series(1, 10000) g, (values ('long'), ('short')) s (side);
    insert into position_history (exchange, symbol, side, amount, entry_price, created_at, closed_at, receive_time,
        origin_partition, origin) select 'V' || g % 20, 'S' || g % 50 || '-USD', 'long', 1, 1,
        timestamptz '2026-01-05' + g * interval '1 minute', timestamptz '2026-01-06' + g * interval '1 minute',
        now(), 0, g from generate_series(1, 20000) g",
    "insert into orders select 'V' || g % 20, g::text, 'S' || g % 50 || '-USD', 'limit', 'buy', 1, 1,
        case when g % 100 = 0 then 'open' else 'filled' end, 1, null, null, null,
        timestamptz '2026-01-05' + g * interval '1 minute', now(), now(), 0, g from generate_series(1, 50000) g",
];

/// Each index, and a question that the documents' users ask and that it answers. The views' names
/// stand for the documents' tables.
const QUESTIONS: [(&str, &str); 17] = [
    (
        "idx_trades_exchange_symbol_time",
        "select * from market_data_trades where exchange = 'V3' and symbol = 'S3-USD' order by time desc limit 100",
    ),
    (
        "idx_ticker_exchange_symbol_time",
        "select * from market_data_ticker where exchange = 'V3' and symbol = 'S3-USD' order by time desc limit 1",
    ),
    (
        "idx_ohlcv_exchange_symbol_time",
        "select * from market_data_ohlcv where exchange = 'V3' and symbol = 'S3-USD' order by time desc limit 10",
    ),
    (
        "idx_stock_prices_symbol_time",
        "select * from stock_prices where symbol = 'S3-USD' order by time desc limit 10",
    ),
    (
        "idx_ohlcv_recent",
        "select * from market_data_ohlcv where symbol = 'S3-USD' and timeframe = '5m' and time >= '2026-01-05 01:00+00' order by time desc limit 10",
    ),
    (
        "idx_market_data_symbol_timestamp",
        "select * from market_data where symbol = 'S3-USD' order by \"timestamp\" desc limit 10",
    ),
    (
        "idx_market_data_exchange_timestamp",
        "select * from market_data where exchange = 'V3' order by \"timestamp\" desc limit 10",
    ),
    (
        "idx_supply_demand_date_symbol",
        "select * from supply_demand where date = '2026-01-12 00:00+00' and symbol = 'S7-KRW'",
    ),
    (
        "supply_demand_key",
        "select * from supply_demand where exchange = 'KRX' and symbol = 'S7-KRW' and date > '2026-01-10'",
    ),
    (
        "idx_predictions_model_symbol",
        "select * from predictions where model_id = 'm7' and symbol = 'S7-USD'",
    ),
    ("idx_predictions_timestamp", "select * from predictions order by \"timestamp\" desc limit 10"),
    (
        "idx_portfolio_user_timestamp",
        "select * from portfolio_status where user_id = md5('7')::uuid order by \"timestamp\" desc limit 1",
    ),
    (
        "idx_positions_exchange_symbol",
        "select * from current_positions where exchange = 'V7' and symbol = 'S7-USD'",
    ),
    (
        "idx_position_history_symbol_time",
        "select * from position_history where symbol = 'S7-USD' order by created_at desc limit 10",
    ),
    (
        "idx_orders_exchange_status",
        "select * from orders where exchange = 'V0' and status = 'open'",
    ),
    ("idx_orders_created_at", "select * from orders order by created_at desc limit 20"),
    ("orders_pkey", "select * from orders where exchange = 'V7' and exchange_order_id = '7'"),
];

#[tokio::test]
async fn each_index_of_the_documents_answers_its_question_t13() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    connection.execute("select tapeline_market_data_indexes(true)").await.expect("indexes");
    for rows in ROWS {
        connection.execute(rows).await.expect(rows);
    }
    connection.execute("analyze").await.expect("analyze");
    for (index, question) in QUESTIONS {
        let sql = format!("explain (costs off) {question}");
        let plan: Vec<String> =
            sqlx::query_scalar(&sql).fetch_all(&mut connection).await.expect(question);
        let plan = plan.join("\n");
        assert!(plan.contains(index), "{question}\nexpected {index}:\n{plan}");
    }
    connection.close().await.expect("closed");
    database.finish().await;
}

#[tokio::test]
async fn the_index_on_recent_data_moves_on_and_those_of_market_data_come_and_go_t13() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    let date = "select substring(indexdef from 'time\"? >= ''(.{10})') from pg_indexes where indexname = 'idx_ohlcv_recent'";
    let age = format!("select (current_date - ({date})::date)::int");
    let mut config = DatabaseConfig { recent_days: 10, ..Default::default() };
    migrate::configure(&mut connection, &config).await.expect("configured");
    let days: i32 = sqlx::query_scalar(&age).fetch_one(&mut connection).await.expect("age");
    assert!((10..=11).contains(&days), "{days}");
    let mut again = migrate::configure(&mut connection, &config).await.expect("configured");
    // The Community edition's policies are set each time.
    again.retain(|done| !done.starts_with("chunks are compressed after"));
    assert_eq!(again, Vec::<String>::new(), "it is not built anew each time");
    let count = "select count(*) from pg_indexes where schemaname = 'public' and indexname like 'idx_market_data%'";
    for (wanted, indexes) in [(true, 2_i64), (false, 0)] {
        config.market_data_indexes = wanted;
        migrate::configure(&mut connection, &config).await.expect("configured");
        let found: i64 = sqlx::query_scalar(count).fetch_one(&mut connection).await.expect("count");
        assert_eq!(found, indexes);
    }
    connection.close().await.expect("closed");
    database.finish().await;
}

#[tokio::test]
async fn secrets_are_sealed_in_the_database_and_outlive_their_key_t11() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    let (old, new) = (secrets::generate(), secrets::generate());
    let keys = |text: &str| Keys::parse(text);
    let no_keys = || -> anyhow::Result<Keys> { panic!("plain values need no key") };
    let secret = "exchange.KRAKEN.api_secret";
    for (key, value, sealed) in [
        (secret, "kQH5HW/8p1uGOVjb", true),
        ("exchange.KRAKEN.api_key", "key-id", true),
        ("pager", "t0ken", true),
    ] {
        settings::set(&mut connection, key, value, sealed, None, || keys(&old)).await.expect(key);
    }
    for (key, value) in
        [("exchange.KRAKEN.rate_limit", "20"), ("exchange.KRAKEN.enabled", "false"), ("limit", "5")]
    {
        settings::set(&mut connection, key, value, false, Some("why"), no_keys).await.expect(key);
    }
    let all = settings::list(&mut connection).await.expect("list");
    let shown: Vec<_> = all.iter().map(|s| (s.key.as_str(), s.shown())).collect();
    assert_eq!(
        shown,
        [
            ("exchange.KRAKEN.api_key", "***"),
            ("exchange.KRAKEN.api_secret", "***"),
            ("exchange.KRAKEN.enabled", "false"),
            ("exchange.KRAKEN.rate_limit", "20"),
            ("exchange.KRAKEN.sandbox", "false"),
            ("limit", "5"),
            ("pager", "***"),
        ]
    );
    // Nothing that the database holds shows a secret.
    let dump = "select (select string_agg(t::text, '') from system_config t) || (select string_agg(t::text, '') from exchange_config t)";
    let dump: String = sqlx::query_scalar(dump).fetch_one(&mut connection).await.expect("dump");
    for plain in ["kQH5HW/8p1uGOVjb", "key-id", "t0ken"] {
        assert!(!dump.contains(plain));
    }
    // A secret does not become a plain value by mistake, nor does one come in by the side.
    let open = settings::set(&mut connection, "pager", "plain", false, None, no_keys).await;
    assert!(format!("{:#}", open.expect_err("refused")).contains("is a secret"));
    let aside = "update exchange_config set api_secret = 'in the clear'";
    assert!(connection.execute(aside).await.is_err());
    // One exchange's sealed secret is of no use in another's place.
    connection
        .execute("insert into exchange_config (exchange_name, api_secret) select 'BINANCE', api_secret from exchange_config")
        .await
        .expect("copied");
    let moved = settings::get(&mut connection, "exchange.BINANCE.api_secret")
        .await
        .expect("get")
        .expect("set");
    assert!(moved.reveal(&keys(&old).expect("keys")).is_err());
    // A secret that cannot be opened stops the rotation, and nothing of it stays.
    let both = keys(&format!("{new}\n{old}")).expect("keys");
    assert!(settings::rotate(&mut connection, &both).await.is_err());
    let reveal = async |connection: &mut PgConnection, keys: &Keys| {
        settings::get(connection, secret).await.expect("get").expect("set").reveal(keys)
    };
    assert!(reveal(&mut connection, &keys(&old).expect("keys")).await.is_ok());
    connection
        .execute("delete from exchange_config where exchange_name = 'BINANCE'")
        .await
        .expect("deleted");
    assert_eq!(settings::rotate(&mut connection, &both).await.expect("rotated"), 3);
    assert_eq!(settings::rotate(&mut connection, &both).await.expect("rotated"), 0);
    let only_new = keys(&new).expect("keys");
    assert_eq!(reveal(&mut connection, &only_new).await.expect("opens"), "kQH5HW/8p1uGOVjb");
    assert!(reveal(&mut connection, &keys(&old).expect("keys")).await.is_err());
    for key in ["exchange.kraken.api_key", "exchange.KRAKEN.drop", "exchange.KRAKEN", ""] {
        assert!(settings::get(&mut connection, key).await.is_err(), "{key}");
    }
    connection.close().await.expect("closed");
    database.finish().await;
}
