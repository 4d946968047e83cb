//! Whether rows of a range were removed by lifecycle: bringing them back is a restore.

use anyhow::{Result, bail};
use sqlx::PgConnection;

use super::plan::{Part, Plan};
use crate::wiring::Context;

/// Reason under which a promotion notes the rows that it removes.
pub(super) const PROMOTED: &str = "promoted";

/// Refuses a range some of whose days were dropped from their table. The ledger says which days
/// the range's rows are of.
pub(super) async fn refuse(
    database: &mut PgConnection,
    context: &Context,
    plan: &Plan,
) -> Result<()> {
    for part in &plan.parts {
        let table = plan.topics.iter().find(|topic| topic.name == part.topic);
        let Some(table) = table.and_then(|topic| topic.kind.spec().table) else { continue };
        let live = &context.config.pipeline.id;
        if let Some((day, reason)) = first_dropped(database, live, part, table).await? {
            bail!(
                "{} [{}] offsets {}..{} hold events of {day}, whose rows were removed from {table} ({reason}): \
                 bringing them back is a restore, not a replay. Begin behind that day",
                part.topic,
                part.partition,
                part.from,
                part.to
            );
        }
    }
    Ok(())
}

async fn first_dropped(
    database: &mut PgConnection,
    live: &str,
    part: &Part,
    table: &str,
) -> Result<Option<(String, String)>> {
    let found = sqlx::query_as(
        "select r.day::text, r.reason
        from tapeline_ledger l, jsonb_object_keys(l.by_day) as held (day), tapeline_removals r
        where l.pipeline = $1 and l.topic = $2 and l.partition = $3
            and l.last_offset >= $4 and l.first_offset < $5
            and r.pipeline = $1 and r.table_name = $6 and r.day = held.day::date
            and r.reason <> $7
        order by r.day limit 1",
    )
    .bind(live)
    .bind(&part.topic)
    .bind(part.partition)
    .bind(part.from)
    .bind(part.to)
    .bind(table)
    .bind(PROMOTED)
    .fetch_optional(database)
    .await?;
    Ok(found)
}
