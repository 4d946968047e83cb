//! Candles: every final one that nothing is on its way for equals the recomputation from what is
//! stored (invariant 7).

use std::collections::BTreeSet;

use anyhow::Result;
use sqlx::{PgConnection, Row};
use tapeline_schemas::Micros;
use tapeline_stages::candle::{Judged, ReviseError, judge_day};

use super::counts::within;
use super::cut::Cut;
use super::report::Check;
use super::unsettled::Unsettled;

const DAY_MICROS: i64 = 86_400_000_000;

/// The check, a day at a time.
pub(super) async fn judge(
    database: &mut PgConnection,
    cut: &Cut,
    unsettled: &Unsettled,
) -> Result<Check> {
    let mut check = Check::new("candles");
    let removed = removed_days(database).await?;
    let losses = losses(database).await?;
    for day in days(database, cut).await? {
        let trades_removed = removed.contains(&day);
        let judged = |judged: Judged<'_>| {
            check.examined += 1;
            let window = judged.window;
            let Some(wrong) = judged.wrong else { return };
            if unsettled.covers(&window) {
                check.count("on_their_way", 1);
                return;
            }
            // The candle stage may have taken what the store accepted as lost.
            let (start, end) = (window.start.0, window.frame.end(window.start).0);
            if losses.iter().any(|&(from, to)| from <= end && start <= to) {
                check.count("accepted_as_lost", 1);
                return;
            }
            check.wrong(|| {
                format!(
                    "{}:{} {} of {}: {wrong}",
                    window.exchange, window.symbol, window.frame, window.start
                )
            });
        };
        match judge_day(database, Micros(day * DAY_MICROS), trades_removed, judged).await {
            Ok(()) => {}
            Err(ReviseError::Unsound(detail)) => {
                check.wrong(|| format!("{}: {detail}", super::counts::day_name(day)));
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(check)
}

/// Days with final candles.
async fn days(database: &mut PgConnection, cut: &Cut) -> Result<Vec<i64>> {
    let sql = format!(
        "select distinct (extract(epoch from date_bin('1 day', time, 'epoch')) / 86400)::bigint \
         as day from market_data_ohlcv where source = 'tapeline' and final and {} order by day",
        within("time", cut.days)
    );
    let rows = sqlx::query(&sql).fetch_all(database).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Days of which lifecycle has removed trades: their minutes cannot be computed again.
async fn removed_days(database: &mut PgConnection) -> Result<BTreeSet<i64>> {
    let sql = "select distinct (day - date '1970-01-01')::bigint from tapeline_removals \
               where table_name = 'market_data_trades'";
    let rows = sqlx::query(sql).fetch_all(database).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Event times around trades that were accepted as lost: from what a partition had stored before
/// to what its next batch brought.
async fn losses(database: &mut PgConnection) -> Result<Vec<(i64, i64)>> {
    let sql = "
        with batches as (
            select lost, max_event_time as until,
                max(max_event_time) over (partition by pipeline, topic, partition
                    order by first_offset rows between unbounded preceding and 1 preceding) as since
            from tapeline_ledger where topic ~ '(^|[^a-z_])trade$')
        select coalesce((extract(epoch from since) * 1000000)::bigint, $1),
            coalesce((extract(epoch from until) * 1000000)::bigint, $2)
        from batches where lost > 0";
    let rows = sqlx::query(sql).bind(i64::MIN).bind(i64::MAX).fetch_all(database).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}
