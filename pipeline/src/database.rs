//! Connections for commands that only read: `database.read_url`, be it a replica or a pooler that gives a server's
//! connection for a transaction only (O5, S8).

use std::str::FromStr as _;

use anyhow::{Context as _, Result};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tapeline_stages::tls::advised;

use crate::config::DatabaseConfig;

/// Settings of such a connection. No prepared statement is expected to outlive its transaction: behind a pooler in
/// transaction mode the next one may run on another server connection.
pub fn read_options(config: &DatabaseConfig) -> Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(config.read_url())
        .map_err(|_| anyhow::anyhow!("database.read_url: cannot be read as a url"))?;
    Ok(options.application_name("tapeline-read").statement_cache_capacity(0))
}

/// Such a connection. Outside of a transaction each statement may run on another server connection.
pub async fn connect(config: &DatabaseConfig) -> Result<PgConnection> {
    let connecting = PgConnection::connect_with(&read_options(config)?).await;
    connecting.map_err(|error| {
        anyhow::Error::msg(advised(error.to_string()))
            .context("database: cannot connect, see database.read_url and database.url")
    })
}

/// A connection inside a read-only transaction, which sees one snapshot until the connection ends.
pub async fn reader(config: &DatabaseConfig) -> Result<PgConnection> {
    let mut connection = connect(config).await?;
    connection
        .execute("begin isolation level repeatable read read only")
        .await
        .context("database: no transaction to read in")?;
    Ok(connection)
}
