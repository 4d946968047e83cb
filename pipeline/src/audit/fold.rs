//! Folding the ledger: old rows of a partition become one a day. Coverage and sums stay the same,
//! so that the audit says the same before and after.

use std::time::Duration;

use anyhow::Result;
use sqlx::{Connection as _, PgConnection};

use crate::migrate;

/// What was folded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Folded {
    /// Rows that are gone.
    pub rows: u64,
    /// Rows that stand for them.
    pub into: u64,
}

/// The old rows of a partition with the group that each belongs to. A row that does not add up,
/// or does not follow the one before, begins a group, so that whatever the audit would name stays
/// as it is; a row of another day or topic id begins one too.
const GROUPS: &str = "create temporary table ledger_groups on commit drop as
    with old as (
        select l.*, (l.written_at at time zone 'UTC')::date as day,
            (select coalesce(sum(value::bigint), 0) from jsonb_each_text(l.by_day)) as added
        from tapeline_ledger l
        where pipeline = $1 and topic = $2 and partition = $3
            and written_at < clock_timestamp() - make_interval(secs => $4)
    ), judged as (
        select *, last_origin - first_origin + 1 = stored + duplicate + conflict + not_stored
                + quarantined + control + skipped + lost
            and (added = stored or (added < stored and topic ~ '(candle|gap)$')) as sound
        from old
    ), linked as (
        select *, sound and lag(sound) over before and day = lag(day) over before
            and topic_id = lag(topic_id) over before
            and first_offset = lag(last_offset) over before + 1
            and first_origin = lag(last_origin) over before + 1 as follows
        from judged
        window before as (order by first_offset, id)
    ), numbered as (
        select *, count(*) filter (where follows is not true) over (order by first_offset, id)
            as group_no
        from linked
    )
    select *, count(*) over (partition by group_no) as members from numbered";

const REMOVE: &str = "delete from tapeline_ledger
    where id in (select id from ledger_groups where members > 1)";

const ADD: &str = "insert into tapeline_ledger (id, pipeline, topic, topic_id, partition,
        first_offset, last_offset, first_origin, last_origin, stored, duplicate, conflict,
        not_stored, quarantined, control, skipped, lost, repeated, min_event_time,
        max_event_time, by_day, rules, written_at, batches)
    overriding system value
    select min(id), min(pipeline), min(topic), min(topic_id), min(partition), min(first_offset),
        max(last_offset), min(first_origin), max(last_origin), sum(stored), sum(duplicate),
        sum(conflict), sum(not_stored), sum(quarantined), sum(control), sum(skipped), sum(lost),
        sum(repeated), min(min_event_time), max(max_event_time),
        (select coalesce(jsonb_object_agg(key, rows), '{}') from (
            select key, sum(value::bigint) as rows
            from ledger_groups d, jsonb_each_text(d.by_day)
            where d.group_no = g.group_no group by key) as days),
        (select coalesce(string_agg(distinct rule, ',' order by rule), '')
            from ledger_groups r, string_to_table(r.rules, ',') as rule
            where r.group_no = g.group_no and rule <> ''),
        max(written_at), sum(batches)
    from ledger_groups g where members > 1 group by group_no";

/// Folds the rows of `pipeline` that were written longer ago than `older_than`, each partition in
/// one transaction. The store may be at work meanwhile: it only adds rows.
pub async fn fold(url: &str, pipeline: &str, older_than: Duration) -> Result<Folded> {
    let mut database = migrate::connect(url).await?;
    migrate::check(&mut database).await?;
    let places: Vec<(String, i32)> = sqlx::query_as(
        "select distinct topic, partition from tapeline_ledger where pipeline = $1 order by 1, 2",
    )
    .bind(pipeline)
    .fetch_all(&mut database)
    .await?;
    let mut folded = Folded::default();
    for place in places {
        let (rows, into) = fold_partition(&mut database, pipeline, &place, older_than).await?;
        folded.rows += rows;
        folded.into += into;
    }
    Ok(folded)
}

async fn fold_partition(
    database: &mut PgConnection,
    pipeline: &str,
    (topic, partition): &(String, i32),
    older_than: Duration,
) -> Result<(u64, u64)> {
    let mut work = database.begin().await?;
    // One at a time: two would count the same rows twice.
    sqlx::query("select pg_advisory_xact_lock('tapeline_ledger'::regclass::bigint)")
        .execute(&mut *work)
        .await?;
    sqlx::query(GROUPS)
        .bind(pipeline)
        .bind(topic)
        .bind(partition)
        .bind(older_than.as_secs_f64())
        .persistent(false)
        .execute(&mut *work)
        .await?;
    let rows = sqlx::query(REMOVE).persistent(false).execute(&mut *work).await?.rows_affected();
    let into = sqlx::query(ADD).persistent(false).execute(&mut *work).await?.rows_affected();
    work.commit().await?;
    Ok((rows, into))
}
