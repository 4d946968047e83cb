//! What a database holds at a moment that recovery can find again: rows and a checksum of every table.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::place::Place;

/// How long writers may be kept waiting for the moment.
const LOCK_TIMEOUT: &str = "5s";
/// How long the log may take to the repository.
const ARCHIVED_WITHIN: Duration = Duration::from_secs(120);
/// How often the server tries before it waits for a minute.
const ATTEMPTS: i64 = 3;
const LOOK: Duration = Duration::from_millis(100);

/// Rows of a table, and a sum over them that does not depend on their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) rows: i64,
    checksum: String,
}

/// Sums by the tables' quoted names.
pub(super) type Sums = BTreeMap<String, Sum>;

/// A moment of the live database: a restore point in its log, and a transaction that sees exactly what was there.
pub(super) struct Moment {
    /// Name of the restore point.
    name: String,
    seen: PgConnection,
}

/// Tables of people and of the pipeline; chunks are read through theirs.
const TABLES: &str = "select format('%I.%I', n.nspname, c.relname)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence = 'p'
        and n.nspname not in ('pg_catalog', 'information_schema')
        and n.nspname not like '\\_timescaledb%' and n.nspname not like 'pg\\_t%'
    order by 1";

impl Moment {
    /// Marks the moment. Writers wait for as long as it takes to lock the tables and to write one record.
    pub(super) async fn mark(place: &Place, name: String) -> Result<Moment> {
        let mut marking = place.connect(&place.database).await?;
        let tables: Vec<String> = sqlx::query_scalar(TABLES).fetch_all(&mut marking).await?;
        ensure!(!tables.is_empty(), "database {} has no tables", place.database);
        // Locks come before the snapshot: what is seen then is all that the log has up to the restore point.
        let lock = format!(
            "begin isolation level repeatable read; set local lock_timeout = '{LOCK_TIMEOUT}';
            lock table {} in share mode",
            tables.join(", ")
        );
        marking
            .execute(lock.as_str())
            .await
            .context("a writer holds a table for too long; try again")?;
        let (snapshot, _): (String, String) =
            sqlx::query_as("select pg_export_snapshot(), pg_create_restore_point($1)::text")
                .bind(&name)
                .fetch_one(&mut marking)
                .await?;
        let mut seen = place.connect(&place.database).await?;
        let see = format!(
            "begin isolation level repeatable read read only; set transaction snapshot '{snapshot}'"
        );
        seen.execute(see.as_str()).await?;
        marking.execute("commit").await?;
        Ok(Moment { name, seen })
    }

    /// Name of the restore point, and what was there. The transaction ends: held through a restore, it would keep
    /// vacuum from all that dies meanwhile.
    pub(super) async fn sums(mut self) -> Result<(String, Sums)> {
        let sums = sums(&mut self.seen).await?;
        self.seen.close().await?;
        Ok((self.name, sums))
    }
}

/// Has the server archive its log up to now, and waits until it has. The transaction is for recovery to a time: it
/// ends at the first one after that.
pub(super) async fn hand_over(place: &Place) -> Result<()> {
    let mut server = place.connect("postgres").await?;
    server.execute("select txid_current()").await?;
    let segment: String = sqlx::query_scalar("select pg_walfile_name(pg_switch_wal())")
        .fetch_one(&mut server)
        .await?;
    let mut failures = None;
    let waiting = async {
        loop {
            let (last, failed): (Option<String>, i64) =
                sqlx::query_as("select last_archived_wal, failed_count from pg_stat_archiver")
                    .fetch_one(&mut server)
                    .await?;
            if last.is_some_and(|last| last >= segment) {
                return anyhow::Ok(());
            }
            let failed = failed - *failures.get_or_insert(failed);
            ensure!(failed < ATTEMPTS, "the server cannot archive its log, which says why");
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(ARCHIVED_WITHIN, waiting).await.ok().with_context(|| {
        format!(
            "segment {segment} of the log was not archived within {ARCHIVED_WITHIN:?}: see the server's log, and \
             whether `tapeline backup setup` was run"
        )
    })?
}

/// Rows and checksum of every table, as `database` sees them.
pub(super) async fn sums(database: &mut PgConnection) -> Result<Sums> {
    let tables: Vec<String> = sqlx::query_scalar(TABLES).fetch_all(&mut *database).await?;
    let mut sums = Sums::new();
    for table in tables {
        let (rows, checksum) = sqlx::query_as(&format!(
            "select count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text from {table} t"
        ))
        .fetch_one(&mut *database)
        .await
        .with_context(|| format!("cannot read all of {table}"))?;
        sums.insert(table, Sum { rows, checksum });
    }
    Ok(sums)
}

/// Tables whose rows differ, each with both numbers.
pub(super) fn differences(live: &Sums, restored: &Sums) -> Vec<String> {
    let mut differences = Vec::new();
    for (table, sum) in live {
        match restored.get(table) {
            Some(other) if other == sum => {}
            Some(other) => differences.push(format!(
                "{table}: {} rows in the database, {} restored{}",
                sum.rows,
                other.rows,
                if sum.rows == other.rows { ", with other content" } else { "" }
            )),
            None => differences.push(format!("{table}: not restored")),
        }
    }
    differences
}
