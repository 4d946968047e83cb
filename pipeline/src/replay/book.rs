//! The bookkeeping of replays: what was asked for, how far it is, and who is at it.

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use sqlx::{PgConnection, Row};

use super::plan::Part;
use super::{Request, Target};

/// How a replay stands.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What was asked for.
    pub settings: Request,
    /// The ranges that this meant when it began.
    pub asked: Vec<Part>,
    /// `running` (also after a kill), `interrupted`, `failed`, `done` or `promoted`.
    pub state: String,
    /// Number of the step under way.
    pub step: usize,
    /// How far that step is; empty before it begins.
    pub positions: Vec<Part>,
}

impl Entry {
    /// The pipeline id of its fences and ledger (invariant 5).
    pub fn pipeline(&self, live: &str) -> String {
        match &self.settings.into {
            Target::Shadow(_) => format!("{live}/shadow/{}", self.name),
            Target::Store | Target::Topic(_) => format!("{live}/replay/{}", self.name),
        }
    }
}

const COLUMNS: &str = "name, settings::text, state, step, positions::text, asked::text";

fn entry(row: &sqlx::postgres::PgRow) -> Result<Entry> {
    let name: String = row.try_get(0)?;
    let unreadable = || format!("the settings of replay {name}; written by another version?");
    Ok(Entry {
        settings: serde_json::from_str(row.try_get(1)?).with_context(unreadable)?,
        state: row.try_get(2)?,
        step: usize::try_from(row.try_get::<i32, _>(3)?)?,
        positions: serde_json::from_str(row.try_get(4)?).with_context(unreadable)?,
        asked: serde_json::from_str(row.try_get(5)?).with_context(unreadable)?,
        name,
    })
}

/// Every replay of a pipeline, in the order of their starts.
pub async fn list(database: &mut PgConnection, pipeline: &str) -> Result<Vec<Entry>> {
    let sql = format!("select {COLUMNS} from tapeline_replays where pipeline = $1 order by id");
    let rows = sqlx::query(&sql).bind(pipeline).fetch_all(database).await?;
    rows.iter().map(entry).collect()
}

/// The replay of this name.
pub(super) async fn find(
    database: &mut PgConnection,
    pipeline: &str,
    name: &str,
) -> Result<Option<Entry>> {
    let entries = list(database, pipeline).await?;
    Ok(entries.into_iter().find(|entry| entry.name == name))
}

/// Notes a new replay, under `name` or one of its own.
pub(super) async fn begin(
    database: &mut PgConnection,
    pipeline: &str,
    name: Option<&str>,
    settings: &Request,
    asked: &[Part],
) -> Result<Entry> {
    let sql = format!(
        "with next as (select nextval(pg_get_serial_sequence('tapeline_replays', 'id')) as id)
        insert into tapeline_replays (id, pipeline, name, target, settings, asked, state, positions)
        select id, $1, coalesce($2, 'r' || id), $3, $4::jsonb, $5::jsonb, 'running', '[]' from next
        on conflict (pipeline, name) do nothing returning {COLUMNS}"
    );
    let row = sqlx::query(&sql)
        .bind(pipeline)
        .bind(name)
        .bind(settings.into.to_string())
        .bind(serde_json::to_string(settings)?)
        .bind(serde_json::to_string(asked)?)
        .fetch_optional(database)
        .await?;
    let Some(row) = row else {
        bail!(
            "there is a replay named {0} already: go on with `--resume {0}`, or take another name (a shadow is removed with `tapeline replay drop {0}`)",
            name.unwrap_or_default()
        );
    };
    entry(&row)
}

/// The replay to go on with: the named one, or the only one that is not done.
pub(super) async fn resume(
    database: &mut PgConnection,
    pipeline: &str,
    name: Option<&str>,
) -> Result<Entry> {
    let entries = list(database, pipeline).await?;
    let Some(name) = name else {
        let mut open: Vec<_> = entries
            .into_iter()
            .filter(|entry| !["done", "promoted"].contains(&entry.state.as_str()))
            .collect();
        let names: Vec<_> = open.iter().map(|entry| entry.name.clone()).collect();
        ensure!(open.len() < 2, "several replays can go on, name one: {}", names.join(", "));
        return open.pop().context("there is no replay to go on with");
    };
    let entry = entries.into_iter().find(|entry| entry.name == name);
    let entry = entry.with_context(|| format!("there is no replay named {name}"))?;
    ensure!(
        !["done", "promoted"].contains(&entry.state.as_str()),
        "replay {name} is {}: nothing is left to go on with",
        entry.state
    );
    Ok(entry)
}

/// Makes sure that nobody else is at this replay as long as the connection lives.
pub(super) async fn lock(database: &mut PgConnection, pipeline: &str, name: &str) -> Result<()> {
    let free: bool = sqlx::query_scalar("select pg_try_advisory_lock(hashtextextended($1, 0))")
        .bind(format!("tapeline replay {pipeline} {name}"))
        .fetch_one(database)
        .await?;
    ensure!(free, "replay {name} is running in another process");
    Ok(())
}

/// Notes state, step and positions.
pub(super) async fn save(database: &mut PgConnection, pipeline: &str, entry: &Entry) -> Result<()> {
    sqlx::query(
        "update tapeline_replays set state = $3, step = $4, positions = $5::jsonb,
            changed_at = clock_timestamp()
        where pipeline = $1 and name = $2",
    )
    .bind(pipeline)
    .bind(&entry.name)
    .bind(&entry.state)
    .bind(i32::try_from(entry.step)?)
    .bind(serde_json::to_string(&entry.positions)?)
    .execute(database)
    .await
    .context("bookkeeping of the replay")?;
    Ok(())
}

/// Forgets a replay.
pub(super) async fn remove(database: &mut PgConnection, pipeline: &str, name: &str) -> Result<()> {
    sqlx::query("delete from tapeline_replays where pipeline = $1 and name = $2")
        .bind(pipeline)
        .bind(name)
        .execute(database)
        .await?;
    Ok(())
}
