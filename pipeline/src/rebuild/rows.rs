//! The newest row of each symbol. What there is of symbols is found by steps through the index, so that neither side
//! holds more than a row of each. Backward, because each step then meets the newest entry of a symbol first.

use anyhow::{Result, bail};
use futures_util::TryStreamExt as _;
use sqlx::postgres::PgConnection;
use tapeline_schemas::{Flag, Flags, Kind, Micros, Timeframe};
use tapeline_stages::cache::stored::{self, StoredEvent};

/// Which rows.
pub(super) struct Wanted<'w> {
    pub(super) kind: Kind,
    /// Oldest event time that is looked at, so that chunks before it are not.
    pub(super) since: Micros,
    /// `BTC-USD` or `KRAKEN:BTC-USD`; all where it is empty.
    pub(super) symbols: &'w [String],
    /// The raw topic, as anomalies name it.
    pub(super) raw_topic: &'w str,
}

/// Invariant 6: an event whose time is in doubt is left out. Rows do not carry flags; anomalies do.
const NOT_ODD: &str = "not exists (select from market_data_anomalies as odd
        where odd.origin_topic = $4 and odd.origin_partition = event.origin_partition
            and odd.origin = event.origin and odd.time = event.time and odd.flags && $3)";

const OF_FRAME: &str = "event.timeframe = frame and event.source = 'tapeline'";

fn statement(kind: Kind) -> Result<String> {
    let (Some(table), Some(columns)) = (kind.spec().table, stored::columns(kind)) else {
        bail!("{} is not stored as the cache shows it", kind.name());
    };
    let (frames, condition) = match kind {
        Kind::Candle => ("cross join unnest($3) as frame", OF_FRAME),
        _ => ("", NOT_ODD),
    };
    Ok(format!(
        "with recursive symbols as (
            (select exchange, symbol from {table} where time >= to_timestamp($1 / 1e6)
                order by exchange desc, symbol desc limit 1)
            union all
            select next.exchange, next.symbol from symbols as last cross join lateral (
                select exchange, symbol from {table}
                where (exchange, symbol) < (last.exchange, last.symbol)
                    and time >= to_timestamp($1 / 1e6)
                order by exchange desc, symbol desc limit 1) as next
        )
        select newest.* from symbols {frames} cross join lateral (
            select {columns} from {table} as event
            where event.exchange = symbols.exchange and event.symbol = symbols.symbol
                and event.time >= to_timestamp($1 / 1e6) and {condition}
            order by event.time desc, event.origin desc limit 1) as newest
        where cardinality($2) = 0 or symbols.symbol = any($2)
            or symbols.exchange || ':' || symbols.symbol = any($2)"
    ))
}

/// Names of the flags that leave an event out.
fn odd_flags() -> Vec<&'static str> {
    let is_odd = |flag: &Flag| {
        let mut flags = Flags::NONE;
        flags.set(*flag);
        flags.is_odd_time()
    };
    Flag::ALL.into_iter().filter(is_odd).map(Flag::name).collect()
}

/// Shows each event to `visit`: of several of one time the one of the highest origin, as a fold of the log ends with.
pub(super) async fn newest(
    database: &mut PgConnection,
    wanted: &Wanted<'_>,
    mut visit: impl AsyncFnMut(StoredEvent) -> Result<()>,
) -> Result<()> {
    let sql = statement(wanted.kind)?;
    let query = sqlx::query(&sql).bind(wanted.since.0).bind(wanted.symbols);
    let query = match wanted.kind {
        Kind::Candle => query.bind(Timeframe::ALL.map(Timeframe::name).to_vec()),
        _ => query.bind(odd_flags()).bind(wanted.raw_topic),
    };
    let mut rows = query.fetch(database);
    while let Some(row) = rows.try_next().await? {
        visit(stored::event(wanted.kind, &row)?).await?;
    }
    Ok(())
}
