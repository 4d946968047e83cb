//! Telling the server to hand over its log.

use anyhow::{Result, ensure};
use sqlx::{Executor as _, PgConnection};

use super::place::Place;
use super::tool;

/// How much may be lost with the machine: a segment of the log is handed over at least that often.
const ARCHIVE_TIMEOUT: &str = "60s";

/// Sets the server's archiving and makes the repositories. `false` where the server has to be restarted first, and
/// this has to be run again. An `archive_command` of somebody else's stays, unless it is to be replaced.
pub async fn setup(place: &Place, replace: bool) -> Result<bool> {
    for repository in place.repositories() {
        place.check_folder(repository)?;
    }
    let mut server = place.connect("postgres").await?;
    let ours = format!("pgbackrest --config=\"{}\" ", place.configuration().display());
    let command = format!("{ours}--stanza={} archive-push \"%p\"", place.config.stanza);
    let current: String = sqlx::query_scalar("show archive_command").fetch_one(&mut server).await?;
    let free = current.is_empty() || current == "(disabled)" || current.starts_with(&ours);
    ensure!(
        free || replace,
        "archive_command is `{current}`: something else archives the log; --replace ends that"
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
