//! Numbered migrations: applying them, and refusing to work on a database that lacks one (S7).

use anyhow::{Context, Result, bail};
use sqlx::migrate::Migrate;
use sqlx::{Connection, PgConnection};
use tapeline_stages::sinks::timescale::MIGRATIONS;

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

/// Connects to the database.
pub async fn connect(url: &str) -> Result<PgConnection> {
    PgConnection::connect(url).await.context("database: cannot connect, see database.url")
}

/// Applies what is missing; returns the names of what was applied.
pub async fn up(url: &str) -> Result<Vec<String>> {
    let mut connection = connect(url).await?;
    let before = status(&mut connection).await?;
    MIGRATIONS.run(&mut connection).await.context("migrations")?;
    Ok(before
        .into_iter()
        .filter(|status| !status.applied)
        .map(|status| format!("{:03} {}", status.version, status.name))
        .collect())
}

/// How every migration stands.
pub async fn status(connection: &mut PgConnection) -> Result<Vec<Status>> {
    connection.ensure_migrations_table().await.context("table of migrations")?;
    let applied = connection.list_applied_migrations().await.context("applied migrations")?;
    Ok(MIGRATIONS
        .iter()
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
