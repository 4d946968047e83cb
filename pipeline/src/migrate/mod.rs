//! Numbered migrations: applying them, and refusing to work on a database that lacks one (S7).
//!
//! [`catalog`] describes what the migrations make, for finding drift and for `docs/database.md`;
//! [`roles`] makes the roles and their rights.

pub mod catalog;
pub mod document;
pub mod roles;
mod scram;

use anyhow::{Context, Result, bail};
use sqlx::migrate::{Migrate, Migration, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tapeline_stages::sinks::timescale::MIGRATIONS;
use tapeline_stages::tls::advised;

use crate::config::DatabaseConfig;

/// What needs TimescaleDB's Community edition: compression and continuous aggregates (S2).
static COMMUNITY: Migrator = sqlx::migrate!("../sql/community");

/// Tables that are compressed on the Community edition, and its continuous aggregates with how
/// far back each is refreshed.
const COMPRESSED: [&str; 4] =
    ["market_data_trades", "market_data_ticker", "market_data_orderbook", "market_data_ohlcv"];
const AGGREGATES: [(&str, i32); 2] = [("mv_ohlcv_1h", 7), ("daily_candles", 30)];

/// How a migration stands in a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub name: String,
    /// Whether it was applied.
    pub applied: bool,
    /// Whether what was applied is what the file says.
    pub unchanged: bool,
}

/// Connects to the database. What is asked here takes as long as it takes: a statement that is slow is nothing to warn of.
pub async fn connect(url: &str) -> Result<PgConnection> {
    let connecting = async {
        let options: PgConnectOptions = url.parse()?;
        options.disable_statement_logging().connect().await
    };
    connecting.await.map_err(|error: sqlx::Error| {
        let told = advised(error.to_string());
        anyhow::Error::msg(told).context("database: cannot connect, see database.url")
    })
}

/// Applies what is missing, without what configuration asks for; returns the names of what was applied.
pub async fn up(url: &str) -> Result<Vec<String>> {
    let mut connection = connect(url).await?;
    let before = applied(&mut connection).await?;
    // The extension says its edition only once the first migration has made it.
    apply(&mut connection, MIGRATIONS.iter()).await?;
    if is_community(&mut connection).await? {
        apply(&mut connection, MIGRATIONS.iter().chain(COMMUNITY.iter())).await?;
    }
    let after = status(&mut connection).await?.into_iter();
    Ok(after
        .filter(|status| status.applied && !before.contains(&status.version))
        .map(|status| format!("{:03} {}", status.version, status.name))
        .collect())
}

async fn apply(
    connection: &mut PgConnection,
    migrations: impl Iterator<Item = &Migration>,
) -> Result<()> {
    let migrations: Vec<Migration> = migrations.cloned().collect();
    let mut migrator = Migrator { migrations: migrations.into(), ..Migrator::DEFAULT };
    // Those of the other edition, and of a newer version of ours, may be there.
    migrator.set_ignore_missing(true);
    migrator.run(connection).await.context("migrations")
}

/// Sets what is configuration: periods, the indexes of `market_data`, the rights of the roles
/// where there are any. Returns what it did, for people.
pub async fn configure(
    connection: &mut PgConnection,
    config: &DatabaseConfig,
) -> Result<Vec<String>> {
    let mut done = Vec::new();
    let rolled: bool =
        sqlx::query_scalar("select tapeline_recent_index(make_interval(days => $1))")
            .bind(i32::try_from(config.recent_days)?)
            .fetch_one(&mut *connection)
            .await
            .context("index on recent candles")?;
    if rolled {
        done.push("index idx_ohlcv_recent begins at a later day".to_owned());
    }
    sqlx::query("select tapeline_market_data_indexes($1)")
        .bind(config.market_data_indexes)
        .execute(&mut *connection)
        .await
        .context("indexes of market_data")?;
    if is_community(connection).await? {
        set_policies(connection, config).await.context("policies")?;
        done.push(format!(
            "chunks are compressed after {} days, aggregates refreshed every {} minutes",
            config.compress_after_days, config.aggregate_refresh_minutes
        ));
    }
    if roles::exist(connection).await? {
        roles::grant(connection).await?;
        done.push("rights of the roles".to_owned());
    }
    Ok(done)
}

async fn set_policies(connection: &mut PgConnection, config: &DatabaseConfig) -> Result<()> {
    let days = i32::try_from(config.compress_after_days)?;
    let minutes = i32::try_from(config.aggregate_refresh_minutes)?;
    let mut transaction = connection.begin().await?;
    for table in COMPRESSED {
        let sql = "with gone as materialized (select remove_compression_policy($1::regclass, if_exists => true))
            select add_compression_policy($1::regclass, compress_after => make_interval(days => $2)) from gone";
        sqlx::query(sql).bind(table).bind(days).execute(&mut *transaction).await?;
    }
    for (aggregate, back) in AGGREGATES {
        let sql = "with gone as materialized (
                select remove_continuous_aggregate_policy($1::regclass, if_exists => true))
            select add_continuous_aggregate_policy($1::regclass, start_offset => make_interval(days => $2),
                end_offset => interval '1 hour', schedule_interval => make_interval(mins => $3)) from gone";
        sqlx::query(sql)
            .bind(aggregate)
            .bind(back)
            .bind(minutes)
            .execute(&mut *transaction)
            .await?;
    }
    Ok(transaction.commit().await?)
}

/// Whether TimescaleDB's licence is the Community edition's.
pub async fn is_community(connection: &mut PgConnection) -> Result<bool> {
    // The extension's library is loaded, and its setting known, once one of its objects is asked for.
    let license: Option<String> = sqlx::query_scalar(
        "select current_setting('timescaledb.license', true)
        from (select count(*) from timescaledb_information.hypertables) as loaded",
    )
    .fetch_one(connection)
    .await
    .context("licence of timescaledb")?;
    Ok(license.as_deref() == Some("timescale"))
}

/// Versions that were applied; none in a database that has no table of migrations. A role that
/// may only read must be able to ask.
async fn applied(connection: &mut PgConnection) -> Result<Vec<i64>> {
    Ok(list(connection).await?.into_iter().map(|applied| applied.version).collect())
}

async fn list(connection: &mut PgConnection) -> Result<Vec<sqlx::migrate::AppliedMigration>> {
    let there: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
        .fetch_one(&mut *connection)
        .await
        .context("table of migrations")?;
    if !there {
        return Ok(Vec::new());
    }
    connection.list_applied_migrations().await.context("applied migrations")
}

/// How every migration stands that this database's edition takes.
pub async fn status(connection: &mut PgConnection) -> Result<Vec<Status>> {
    let applied = list(connection).await?;
    let community = !applied.is_empty() && is_community(connection).await?;
    let more = if community { COMMUNITY.iter() } else { [].iter() };
    Ok(MIGRATIONS
        .iter()
        .chain(more)
        .map(|migration| {
            let found = applied.iter().find(|applied| applied.version == migration.version);
            Status {
                version: migration.version,
                name: migration.description.to_string(),
                applied: found.is_some(),
                unchanged: found.is_none_or(|found| found.checksum == migration.checksum),
            }
        })
        .collect())
}

/// Refuses a database that lacks a migration, or has another than ours.
pub async fn check(connection: &mut PgConnection) -> Result<()> {
    for status in status(connection).await? {
        if !status.applied {
            bail!(
                "the database lacks migration {:03} {}: run `tapeline migrate up`",
                status.version,
                status.name
            );
        }
        if !status.unchanged {
            bail!(
                "migration {:03} {} was changed after it was applied: restore the file, or write a new one",
                status.version,
                status.name
            );
        }
    }
    Ok(())
}
