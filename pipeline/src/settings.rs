//! Settings kept in the database (T11): `system_config`, and `exchange_config` under keys of the
//! form `exchange.<NAME>.<column>`. Secrets go in sealed and come out only where asked for.

use anyhow::{Context, Result, bail, ensure};
use sqlx::{Connection, PgConnection};

use crate::secrets::Keys;

/// Columns of `exchange_config` that hold secrets.
const SEALED_COLUMNS: [&str; 3] = ["api_key", "api_secret", "passphrase"];
const PLAIN_COLUMNS: [(&str, &str); 3] =
    [("sandbox", "boolean"), ("rate_limit", "integer"), ("enabled", "boolean")];
const LONGEST_KEY: usize = 100;

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its key.
    pub key: String,
    /// Its value; sealed where it is a secret.
    pub value: String,
    /// Whether it is a secret.
    pub is_secret: bool,
}

enum Place<'k> {
    System(&'k str),
    Exchange { name: &'k str, column: &'static str, cast: &'static str },
}

fn place(key: &str) -> Result<Place<'_>> {
    ensure!(!key.is_empty() && key.len() <= LONGEST_KEY, "key: expected 1 to {LONGEST_KEY} bytes");
    let Some(rest) = key.strip_prefix("exchange.") else { return Ok(Place::System(key)) };
    let columns = SEALED_COLUMNS.map(|column| (column, "text")).into_iter().chain(PLAIN_COLUMNS);
    let found = rest.rsplit_once('.').and_then(|(name, wanted)| {
        let (column, cast) = columns.clone().find(|(column, _)| *column == wanted)?;
        Some(Place::Exchange { name, column, cast })
    });
    let upper = |name: &str| !name.is_empty() && name.bytes().all(|b| !b.is_ascii_lowercase());
    match found {
        Some(Place::Exchange { name, column, cast }) if upper(name) => {
            Ok(Place::Exchange { name, column, cast })
        }
        _ => {
            let columns: Vec<_> = columns.map(|(column, _)| column).collect();
            bail!(
                "{key}: expected exchange.<NAME>.<one of {}>, the name in capitals",
                columns.join(", ")
            )
        }
    }
}

/// Sets a value. `keys` is asked for where the value is a secret: always for an exchange's
/// access, and for a system's setting that is said to be one.
pub async fn set(
    database: &mut PgConnection,
    key: &str,
    value: &str,
    secret: bool,
    description: Option<&str>,
    keys: impl FnOnce() -> Result<Keys>,
) -> Result<()> {
    match place(key)? {
        Place::System(name) => {
            let (value, kind) = match secret {
                true => (keys()?.seal(&sealed_place(key), value)?, "secret"),
                false => (value.to_owned(), kind_of(value)),
            };
            // What is a secret stays one, unless it is deleted first.
            let set = sqlx::query(
                "insert into system_config as s (config_key, config_value, config_type, description)
                values ($1, $2, $3, $4)
                on conflict (config_key) do update set config_value = excluded.config_value,
                    config_type = excluded.config_type, updated_at = now(),
                    description = coalesce(excluded.description, s.description)
                where s.config_type <> 'secret' or excluded.config_type = 'secret'",
            )
            .bind(name)
            .bind(value)
            .bind(kind)
            .bind(description)
            .execute(database)
            .await
            .context("system_config")?;
            ensure!(set.rows_affected() == 1, "{key} is a secret: set it with --secret");
        }
        Place::Exchange { name, column, cast } => {
            let is_secret = SEALED_COLUMNS.contains(&column);
            let value = match is_secret {
                true => keys()?.seal(&sealed_place(key), value)?,
                false => value.to_owned(),
            };
            let sql = format!(
                "insert into exchange_config (exchange_name, {column}) values ($1, $2::text::{cast})
                on conflict (exchange_name) do update
                    set {column} = excluded.{column}, updated_at = now()"
            );
            let set = sqlx::query(&sql).bind(name).bind(value).execute(database).await;
            set.with_context(|| format!("{key}: expected {cast}"))?;
        }
    }
    Ok(())
}

fn kind_of(value: &str) -> &'static str {
    match serde_json::from_str(value) {
        Ok(serde_json::Value::Number(_)) => "number",
        Ok(serde_json::Value::Bool(_)) => "boolean",
        Ok(serde_json::Value::Object(_) | serde_json::Value::Array(_)) => "json",
        _ => "string",
    }
}

/// What a secret is bound to: its key.
fn sealed_place(key: &str) -> String {
    format!("tapeline/{key}")
}

/// Every setting, by key.
pub async fn list(database: &mut PgConnection) -> Result<Vec<Setting>> {
    let rows: Vec<(String, String, bool)> = sqlx::query_as(
        "select config_key, config_value, config_type = 'secret' from system_config
        union all
        select 'exchange.' || exchange_name || '.' || v.name, v.value, v.is_secret
        from exchange_config, lateral (values
            ('api_key', api_key, true), ('api_secret', api_secret, true), ('passphrase', passphrase, true),
            ('sandbox', sandbox::text, false), ('rate_limit', rate_limit::text, false),
            ('enabled', enabled::text, false)) as v (name, value, is_secret)
        where v.value is not null
        order by 1",
    )
    .fetch_all(database)
    .await
    .context("settings")?;
    Ok(rows.into_iter().map(|(key, value, is_secret)| Setting { key, value, is_secret }).collect())
}

/// One setting as it is kept; `None` where there is none.
pub async fn get(database: &mut PgConnection, key: &str) -> Result<Option<Setting>> {
    place(key)?;
    Ok(list(database).await?.into_iter().find(|setting| setting.key == key))
}

/// Whether the key is always a secret.
pub fn is_sealed(key: &str) -> Result<bool> {
    Ok(matches!(place(key)?, Place::Exchange { column, .. } if SEALED_COLUMNS.contains(&column)))
}

impl Setting {
    /// The value for people: a secret is hidden.
    pub fn shown(&self) -> &str {
        if self.is_secret { "***" } else { &self.value }
    }

    /// The secret itself, or the plain value.
    pub fn reveal(&self, keys: &Keys) -> Result<String> {
        match self.is_secret {
            true => keys.open(&sealed_place(&self.key), &self.value),
            false => Ok(self.value.clone()),
        }
    }
}

/// Seals every secret anew under the newest key, all or none; returns how many there were.
pub async fn rotate(database: &mut PgConnection, keys: &Keys) -> Result<usize> {
    let mut transaction = database.begin().await?;
    let lock = "lock table system_config, exchange_config in share row exclusive mode";
    sqlx::query(lock).execute(&mut *transaction).await.context("settings")?;
    let mut rotated = 0;
    for setting in list(&mut transaction).await? {
        if !setting.is_secret || keys.is_current(&setting.value) {
            continue;
        }
        let sealed = keys.seal(&sealed_place(&setting.key), &setting.reveal(keys)?)?;
        let (sql, name) = match place(&setting.key)? {
            Place::System(name) => (
                "update system_config set config_value = $2 where config_key = $1".to_owned(),
                name,
            ),
            Place::Exchange { name, column, .. } => {
                (format!("update exchange_config set {column} = $2 where exchange_name = $1"), name)
            }
        };
        sqlx::query(&sql).bind(name).bind(sealed).execute(&mut *transaction).await?;
        rotated += 1;
    }
    transaction.commit().await?;
    Ok(rotated)
}
