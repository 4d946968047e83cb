//! `tapeline migrate` and the settings that are kept in the database.

use std::io::Read as _;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use super::code;
use crate::config::Config;
use crate::database::reader;
use crate::migrate::{self, catalog, document, roles};
use crate::secrets::{self, Keys};
use crate::settings;

/// What to do with migrations.
#[derive(Debug, Subcommand)]
pub enum MigrateAction {
    /// Apply what is missing, and set what is configuration: periods, rights.
    Up,
    /// Say how each stands.
    Status,
    /// Exit 1 where one is missing or was changed, or the database is not what they make, object by object.
    Check,
    /// Make the roles and their rights; passwords come from `TAPELINE_PASSWORD_<LOGIN>`.
    Roles,
    /// Print the catalog of this database: sql/catalog.tsv.
    Catalog,
    /// Print the description of this database with its diagram: docs/database.md.
    Docs,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigAction {
    /// Print the configuration file as it is in force, secrets redacted.
    Show,
    /// Print the settings in the database, secrets hidden.
    List,
    /// Print one setting of the database.
    Get {
        /// Its key; `exchange.<NAME>.api_key` and the like for an exchange.
        key: String,
        /// Open a secret instead of hiding it.
        #[arg(long)]
        reveal: bool,
    },
    /// Set one in the database; without a value, it is read from standard input.
    Set {
        /// Its key.
        key: String,
        /// Its value; not for secrets, as others can see a command line.
        value: Option<String>,
        /// Seal it; an exchange's access always is.
        #[arg(long, conflicts_with = "value")]
        secret: bool,
        /// What it is for.
        #[arg(long)]
        description: Option<String>,
    },
    /// Seal every secret anew under the first of the keys.
    RotateKey,
    /// Print a new key for secrets.
    NewKey,
}

/// Runs `tapeline migrate`.
pub(super) async fn migrations(config: &Config, action: &MigrateAction) -> Result<ExitCode> {
    let write = &config.database.url;
    match action {
        MigrateAction::Up => {
            for applied in migrate::up(write).await? {
                println!("applied {applied}");
            }
            let mut connection = migrate::connect(write).await?;
            for done in migrate::configure(&mut connection, &config.database).await? {
                println!("set {done}");
            }
        }
        MigrateAction::Status => {
            let mut connection = reader(&config.database).await?;
            for status in migrate::status(&mut connection).await? {
                let state = match (status.applied, status.unchanged) {
                    (false, _) => "missing",
                    (true, true) => "applied",
                    (true, false) => "changed since it was applied",
                };
                println!("{:03} {}: {state}", status.version, status.name);
            }
        }
        MigrateAction::Check => {
            let mut connection = reader(&config.database).await?;
            migrate::check(&mut connection).await?;
            let drift = catalog::drift(&mut connection).await?;
            drift.iter().for_each(|difference| println!("{difference}"));
            return Ok(code(drift.is_empty()));
        }
        MigrateAction::Roles => {
            let mut connection = migrate::connect(write).await?;
            roles::create(&mut connection).await?;
            roles::grant(&mut connection).await?;
            let passwords =
                roles::set_passwords(&mut connection, |name| std::env::var(name).ok()).await?;
            println!("roles and rights are set, passwords of: {}", passwords.join(", "));
        }
        MigrateAction::Catalog => {
            let mut connection = reader(&config.database).await?;
            print!("{}", catalog::to_text(&catalog::load(&mut connection).await?));
        }
        MigrateAction::Docs => {
            let mut connection = reader(&config.database).await?;
            print!("{}", document::render(&catalog::load(&mut connection).await?));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `tapeline config`.
pub(super) async fn configuration(config: &Config, action: ConfigAction) -> Result<()> {
    let keys = || Keys::load(&config.secrets);
    match action {
        ConfigAction::Show => println!("{}", serde_json::to_string_pretty(&config.redacted())?),
        ConfigAction::NewKey => println!("{}", secrets::generate()),
        ConfigAction::List => {
            let mut database = reader(&config.database).await?;
            for setting in settings::list(&mut database).await? {
                println!("{} = {}", setting.key, setting.shown());
            }
        }
        ConfigAction::Get { key, reveal } => {
            let mut database = reader(&config.database).await?;
            let setting = settings::get(&mut database, &key).await?;
            let setting = setting.with_context(|| format!("{key} is not set"))?;
            match reveal {
                true if setting.is_secret => println!("{}", setting.reveal(&keys()?)?),
                _ => println!("{}", setting.shown()),
            }
        }
        ConfigAction::Set { key, value, secret, description } => {
            let secret = secret || settings::is_sealed(&key)?;
            let value = match value {
                Some(_) if secret => {
                    bail!(
                        "{key} is a secret: give it on standard input, others can see a command line"
                    )
                }
                Some(value) => value,
                None => {
                    let mut text = String::new();
                    std::io::stdin().read_to_string(&mut text).context("standard input")?;
                    text.trim_end_matches(['\r', '\n']).to_owned()
                }
            };
            let mut database = migrate::connect(&config.database.url).await?;
            let description = description.as_deref();
            settings::set(&mut database, &key, &value, secret, description, keys).await?;
        }
        ConfigAction::RotateKey => {
            let mut database = migrate::connect(&config.database.url).await?;
            let rotated = settings::rotate(&mut database, &keys()?).await?;
            println!("{rotated} secrets sealed anew");
        }
    }
    Ok(())
}
