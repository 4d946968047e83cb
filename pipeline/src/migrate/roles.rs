//! Roles of the database and one login a stage, with the least each needs (O7).
//!
//! Roles belong to the cluster and not to a database, so they are no migration: making them is
//! idempotent, and rights are granted again by every `migrate up`.

use anyhow::{Context, Result, ensure};
use chacha20poly1305::aead::OsRng;
use chacha20poly1305::aead::rand_core::RngCore;
use sqlx::{Executor, PgConnection};

use super::scram;

const CREATE: &str = include_str!("../../../sql/roles.sql");
const GRANT: &str = include_str!("../../../sql/grants.sql");

/// The logins: one for each stage that uses the database, and one for readers.
pub const LOGINS: [&str; 3] = ["tapeline_store", "tapeline_candles", "tapeline_reader"];
/// What passwords are told in: this and the login's name in capitals.
const PASSWORD_VARIABLE: &str = "TAPELINE_PASSWORD_";
const SHORTEST_PASSWORD: usize = 12;

/// Whether the roles are there.
pub async fn exist(connection: &mut PgConnection) -> Result<bool> {
    sqlx::query_scalar("select count(*) = 6 from pg_roles where rolname = any($1)")
        .bind(
            ["timeseries_readonly", "timeseries_writer", "timeseries_admin"]
                .into_iter()
                .chain(LOGINS)
                .collect::<Vec<_>>(),
        )
        .fetch_one(connection)
        .await
        .context("roles")
}

/// Makes the roles that are missing; needs the right to create roles.
pub async fn create(connection: &mut PgConnection) -> Result<()> {
    connection
        .execute(CREATE)
        .await
        .context("roles: needs a superuser, or a role with createrole")?;
    Ok(())
}

/// Gives the roles their rights in this database, and takes what they no longer have; needs its owner.
pub async fn grant(connection: &mut PgConnection) -> Result<()> {
    connection.execute(GRANT).await.context("rights: needs the owner of the tables")?;
    Ok(())
}

/// Sets the passwords that `lookup` knows, of `TAPELINE_PASSWORD_<LOGIN>`; returns whose. Only
/// SCRAM verifiers reach the server.
pub async fn set_passwords(
    connection: &mut PgConnection,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Vec<&'static str>> {
    let mut done = Vec::new();
    for login in LOGINS {
        let variable = format!("{PASSWORD_VARIABLE}{}", login.to_ascii_uppercase());
        let Some(password) = lookup(&variable) else { continue };
        let fits = password.len() >= SHORTEST_PASSWORD && password.is_ascii();
        ensure!(fits, "{variable}: expected at least {SHORTEST_PASSWORD} characters of ascii");
        let mut salt = [0; 16];
        OsRng.fill_bytes(&mut salt);
        // A verifier is base64 and signs that need no quoting.
        let sql = format!("alter role {login} password '{}'", scram::verifier(&password, &salt));
        connection.execute(sql.as_str()).await.with_context(|| format!("password of {login}"))?;
        done.push(login);
    }
    Ok(done)
}
