//! Telling the server to hand over its log.

use anyhow::Result;
use sqlx::{Executor as _, PgConnection};

use super::place::Place;
use super::tool;

/// How much may be lost with the machine: a segment of the log is handed over at least that often.
const ARCHIVE_TIMEOUT: &str = "60s";

/// Sets the server's archiving and makes the repositories. `false` where the server has to be restarted first, and
/// this has to be run again.
pub async fn setup(place: &Place) -> Result<bool> {
    let mut server = place.connect("postgres").await?;
    let command = format!(
        "pgbackrest --config=\"{}\" --stanza={} archive-push \"%p\"",
        place.configuration().display(),
        place.config.stanza
    );
    set(&mut server, "archive_mode", "on").await?;
    set(&mut server, "archive_command", &command).await?;
    set(&mut server, "archive_timeout", ARCHIVE_TIMEOUT).await?;
    server.execute("select pg_reload_conf()").await?;
    let mode: String = sqlx::query_scalar("show archive_mode").fetch_one(&mut server).await?;
    if mode != "on" {
        return Ok(false);
    }
    tool::run(place, None, "stanza-create", &[]).await?;
    tool::run(place, None, "check", &[]).await?;
    Ok(true)
}

async fn set(server: &mut PgConnection, name: &str, value: &str) -> Result<()> {
    let statement = format!("alter system set {name} = '{}'", value.replace('\'', "''"));
    server.execute(statement.as_str()).await?;
    Ok(())
}
