//! `tapeline-loadtest connections`: many clients held at once through a pooler, each asking (O5).

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use futures_util::future::{join_all, try_join_all};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use hdrhistogram::Histogram;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tapeline::config::{Config, with_path};
use tapeline::database::read_options;
use tokio::sync::Barrier;

/// Connections that are opened at the same time.
const OPENING: usize = 64;
/// Where the trades that are asked for are, in the database behind the pooler.
const SCHEMA: &str = "loadtest_connections";
/// Symbols among them.
const SYMBOLS: u64 = 200;

/// How many clients, and what they do.
#[derive(Debug, Args)]
pub(crate) struct ConnectionsArgs {
    /// Clients, all connected at once.
    #[arg(long, default_value_t = 1_200)]
    clients: usize,
    /// How long they ask.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    seconds: u64,
    /// Each client's pause between two questions, in milliseconds.
    #[arg(long, default_value_t = 2_000)]
    think_ms: u64,
    /// Rows of the table that they ask.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// The pooler's entry in transaction mode: another name for the database of `database.url`.
    #[arg(long, env = "TAPELINE_PGBOUNCER_URL", hide_env_values = true)]
    through: String,
}

/// Holds the clients and measures their questions: the last 100 trades of a symbol, in a transaction each.
pub(crate) async fn run(mut config: Config, args: ConnectionsArgs) -> Result<()> {
    config.database.read_url = Some(with_path(&args.through, "tapeline_read"));
    let mut admin = PgConnection::connect(&config.database.url).await.context("database.url")?;
    fill(&mut admin, args.rows).await?;
    let measured = measure(&config, &args, &mut admin).await;
    admin.execute(format!("drop schema {SCHEMA} cascade").as_str()).await?;
    measured
}

async fn fill(database: &mut PgConnection, rows: u64) -> Result<()> {
    let statements = format!(
        "drop schema if exists {SCHEMA} cascade;
        create schema {SCHEMA};
        create table {SCHEMA}.trades (time timestamptz not null, exchange text not null, symbol text not null,
            trade_id text not null, price numeric not null, amount numeric not null);
        select create_hypertable('{SCHEMA}.trades', 'time', chunk_time_interval => interval '1 day');
        insert into {SCHEMA}.trades
            select '2021-04-17T00:00:00Z'::timestamptz + n * interval '86400 seconds' * 2 / {rows}, 'TEST',
                'S' || n % {SYMBOLS}, n::text, 100 + n % 1000, 1
            from generate_series(0, {rows} - 1) n;
        create index on {SCHEMA}.trades (symbol, time desc);
        analyze {SCHEMA}.trades;"
    );
    sqlx::raw_sql(&statements).execute(database).await.context("the table to ask")?;
    Ok(())
}

async fn measure(config: &Config, args: &ConnectionsArgs, admin: &mut PgConnection) -> Result<()> {
    let options = read_options(&config.database)?;
    let began = Instant::now();
    let clients: Vec<PgConnection> = stream::iter(0..args.clients)
        .map(|_| PgConnection::connect_with(&options))
        .buffer_unordered(OPENING)
        .try_collect()
        .await
        .context("through the pooler")?;
    println!("{} clients connected in {:.1} s", clients.len(), began.elapsed().as_secs_f64());
    let (think, until) = (Duration::from_millis(args.think_ms), Duration::from_secs(args.seconds));
    let start = Arc::new(Barrier::new(clients.len() + 1));
    let asking: Vec<_> = (0_u64..)
        .zip(clients)
        .map(|(number, client)| tokio::spawn(ask(client, number, Arc::clone(&start), think, until)))
        .collect();
    start.wait().await;
    let asked = try_join_all(asking).await?.into_iter().collect::<Result<Vec<_>>>()?;
    let servers: i64 = sqlx::query_scalar(
        // Their names do not tell: the pooler resets a connection that it takes back.
        "select count(*) from pg_stat_activity where datname = current_database()
         and backend_type = 'client backend' and pid <> pg_backend_pid()",
    )
    .fetch_one(admin)
    .await?;
    let mut all: Histogram<u64> = Histogram::new(3)?;
    let mut clients = Vec::with_capacity(asked.len());
    for (client, latencies) in asked {
        all.add(&latencies)?;
        clients.push(client);
    }
    let held = clients.len();
    join_all(clients.into_iter().map(PgConnection::close)).await;
    ensure!(!all.is_empty(), "no question was asked: --seconds is shorter than --think-ms");
    let ms = |value: u64| value as f64 / 1_000.0;
    println!(
        "{held} clients held to the end on {servers} server connections; {} questions, {:.0} a second: p50 {:.1} ms, \
         p99 {:.1} ms, slowest {:.1} ms",
        all.len(),
        all.len() as f64 / args.seconds as f64,
        ms(all.value_at_quantile(0.5)),
        ms(all.value_at_quantile(0.99)),
        ms(all.max()),
    );
    Ok(())
}

/// Asks until the time is up; the client, still connected, and how long each answer took in microseconds.
async fn ask(
    mut client: PgConnection,
    number: u64,
    start: Arc<Barrier>,
    think: Duration,
    until: Duration,
) -> Result<(PgConnection, Histogram<u64>)> {
    let mut latencies = Histogram::new(3)?;
    let sql = format!(
        "select t.time::text, trade_id, price::text, amount::text from {SCHEMA}.trades t where symbol = $1 \
         order by t.time desc limit 100"
    );
    start.wait().await;
    let began = Instant::now();
    // Spread over the first pause, as people's questions are.
    let mut pause = think.mul_f64((number % 997) as f64 / 997.0);
    while began.elapsed() + pause < until {
        tokio::time::sleep(pause).await;
        pause = think;
        let asked = Instant::now();
        let mut transaction = client.begin().await?;
        let symbol = format!("S{}", (number * 31 + latencies.len()) % SYMBOLS);
        let rows: Vec<(String, String, String, String)> =
            sqlx::query_as(&sql).bind(symbol).fetch_all(&mut *transaction).await?;
        transaction.commit().await?;
        latencies.record(asked.elapsed().as_micros() as u64)?;
        ensure!(!rows.is_empty(), "no trades of a symbol");
    }
    Ok((client, latencies))
}
