//! `capacity`: bytes of each kind in each tier, for the table in docs/operations.md.

use anyhow::{Context as _, Result};
use serde_json::Value;
use sqlx::{Executor, PgConnection};

use super::life::keep_all;
use super::load::{self, Shape};
use super::place::Place;
use super::say;

/// Rows of each kind: enough that a chunk's first pages do not count.
const ROWS: u64 = 400_000;
const MILLION: f64 = 1e6;
const MIB: f64 = 1_048_576.0;

/// How rows of a kind are made that the market has none of, on 2026-01-01: 50 symbols, values that
/// are neither all alike nor all different.
const MADE: [(&str, &str, &str); 7] = [
    (
        "ticker",
        "market_data_ticker",
        "select t, 'LOADTEST', 'S' || n % 50 || '-USD', n::text, p, p - 0.01, p + 0.01, a, round(a / 2, 4), n, n * 100, null, null, t, n % 12, n",
    ),
    (
        "book",
        "market_data_orderbook",
        "select t, 'LOADTEST', 'S' || n % 50 || '-USD', n::text, l, l, n, n, t, n % 12, n",
    ),
    (
        "option",
        "option_data",
        "select t, 'LOADTEST', 'BTC-USD-' || n % 500, n::text, 'BTC-USD', 50000 + n % 500 * 100, '2026-06-26', 'call', a, round(a / 3, 5),
             round(a / 1000, 5), -a, a * 2, round(a / 5, 5), a - 0.01, a + 0.01, round(p / 50000, 4), p, p, 0, n % 977, t, n % 12, n",
    ),
    (
        "anomaly",
        "market_data_anomalies",
        "select t, 'md.trade.raw', n % 12, n, 'LOADTEST', 'S' || n % 50 || '-USD', 'trade', array['late'],
             'venue time lies ' || n % 90 || ' s before the receive time', t",
    ),
    (
        "flow",
        "supply_demand",
        "select t, 'LOADTEST', 'S' || n % 50 || '-KRW', h % 100000, -(h % 77777), h % 3333, t, t, n % 12, n",
    ),
    (
        "prediction",
        "predictions",
        "select t, 'LOADTEST', 'S' || n % 50 || '-USD', 'model-' || n % 5, 'price', p, (h % 100) / 100.0, t, n % 12, n",
    ),
    (
        "portfolio",
        "portfolio_status",
        "select t, md5((n % 1000)::text)::uuid, 'spot', a, p, p + 1, a, t, n % 12, n",
    ),
];

/// Ten levels of a book.
const LEVELS: &str = ", lateral (select jsonb_agg(jsonb_build_array((p + level / 100.0)::text, (a * level)::text)) as l
     from generate_series(1, 10) level) side";

/// Measures every kind and prints the table.
pub(crate) async fn run() -> Result<bool> {
    let place = Place::new(ROWS * 10).await?;
    let measured = measure(&place).await;
    place.remove().await?;
    println!("{}", measured?);
    Ok(true)
}

async fn measure(place: &Place) -> Result<String> {
    let mut database = place.database().await?;
    load::load_day(&mut database, &Shape { rows: ROWS, days: 1 }, 0).await?;
    for (kind, table, columns) in MADE {
        say(kind);
        let levels = if kind == "book" { LEVELS } else { "" };
        let fill = format!(
            "insert into {table} {columns}
             from generate_series(1, {ROWS}) n,
             lateral (select timestamptz '2026-01-01' + n * interval '200 milliseconds' as t,
                 abs(hashint8(n)) as h) moment,
             lateral (select (1000000 + h % 8192) / 100.0 as p, (1 + h % 65536) / 10000.0 as a) price {levels}"
        );
        database.execute(fill.as_str()).await.with_context(|| format!("filling {table}"))?;
    }
    let community = tapeline::migrate::is_community(&mut database).await?;
    let mut text = format!(
        "| kind | hot: rows | hot: indexes | {}archive |\n|---|--:|--:|{}--:|\n",
        if community { "compressed | " } else { "" },
        if community { "--:|" } else { "" },
    );
    let rules = keep_all();
    let ours = [("trade", "market_data_trades"), ("candle", "market_data_ohlcv")];
    for (kind, table) in ours.into_iter().chain(MADE.map(|(kind, table, _)| (kind, table))) {
        let tiers = tiers(place, &mut database, kind, table, community, &rules).await?;
        let columns: Vec<String> = tiers.iter().map(|mib| format!("{mib:.0} MiB")).collect();
        text.push_str(&format!("| {kind} | {} |\n", columns.join(" | ")));
    }
    Ok(text)
}

/// MiB of a million rows: of the table, of its indexes, compressed, in the archive.
async fn tiers(
    place: &Place,
    database: &mut PgConnection,
    kind: &str,
    table: &str,
    community: bool,
    rules: &Value,
) -> Result<Vec<f64>> {
    let (rows, heap, indexes): (i64, i64, i64) = sqlx::query_as(&format!(
        "select (select count(*) from {table}), sum(table_bytes + coalesce(toast_bytes, 0))::bigint, sum(index_bytes)::bigint
         from chunks_detailed_size('{table}')"
    ))
    .fetch_one(&mut *database)
    .await?;
    let of_million = |bytes: i64| bytes as f64 / MIB / rows as f64 * MILLION;
    let mut tiers = vec![of_million(heap), of_million(indexes)];
    let range = ["--date", "2026-01-01", "--to-date", "2026-01-02"];
    place
        .tapeline(&[&["archive", "create", "--kind", kind], &range[..]].concat(), rules.clone())?;
    let listed = place.tapeline(&["archive", "list", "--kind", kind, "--json"], rules.clone())?;
    let listed: Vec<Value> = serde_json::from_str(&listed)?;
    let archived: i64 = listed.iter().filter_map(|day| day["bytes"].as_i64()).sum();
    if community {
        let compress =
            format!("select compress_chunk(chunk, true) from show_chunks('{table}') chunk");
        // tables without compression stay as they are
        if database.execute(compress.as_str()).await.is_ok() {
            let bytes: i64 = sqlx::query_scalar(&format!("select hypertable_size('{table}')"))
                .fetch_one(&mut *database)
                .await?;
            tiers.push(of_million(bytes));
        } else {
            tiers.push(tiers[0] + tiers[1]);
        }
    }
    tiers.push(of_million(archived));
    Ok(tiers)
}
