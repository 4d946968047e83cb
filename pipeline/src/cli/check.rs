//! `tapeline check`: is everything there that a stage will need?

use std::process::ExitCode;

use anyhow::{Context, Result};
use sqlx::Connection as _;
use tapeline_stages::tls::redis_refusal;

use super::host::stopped_by_signal;
use super::{CheckArgs, code};
use crate::config::Config;
use crate::database::reader;
use crate::demo::{self, DemoArgs};
use crate::kafka::describe_all;
use crate::migrate;
use crate::registry_client::RegistryClient;

/// Runs the checks that were asked for; the configuration is checked by having been loaded.
pub(super) async fn run(config: Config, args: &CheckArgs) -> Result<ExitCode> {
    config.kafka.check()?;
    let mut good = true;
    println!("configuration: good");
    if args.deps {
        good &= report("kafka", kafka(&config).await);
        good &= report("registry", registry(&config).await);
        good &= report("database", database(&config).await);
        good &= report("redis", cache(&config).await);
    }
    if args.e2e {
        let demo = DemoArgs::simulated();
        good &= demo::run(config, demo, stopped_by_signal()?).await? == ExitCode::SUCCESS;
    }
    Ok(code(good))
}

fn report(what: &str, found: Result<String>) -> bool {
    match &found {
        Ok(fine) => println!("{what}: {fine}"),
        Err(error) => println!("{what}: {error:#}"),
    }
    found.is_ok()
}

async fn kafka(config: &Config) -> Result<String> {
    Ok(format!("{} topics", describe_all(&config.kafka).await?.len()))
}

async fn registry(config: &Config) -> Result<String> {
    let client =
        RegistryClient::configured(&config.registry)?.context("registry.url is not set")?;
    client.lookup(1).await?;
    Ok("answers".to_owned())
}

async fn database(config: &Config) -> Result<String> {
    let mut connection = migrate::connect(&config.database.url).await?;
    migrate::check(&mut connection).await?;
    let version: String =
        sqlx::query_scalar("select extversion from pg_extension where extname = 'timescaledb'")
            .fetch_one(&mut connection)
            .await
            .context("extension timescaledb")?;
    connection.close().await?;
    if config.database.read_url.is_some() {
        let mut reading = reader(&config.database).await?;
        migrate::check(&mut reading).await.context("database.read_url")?;
    }
    Ok(format!("migrated, timescaledb {version}"))
}

async fn cache(config: &Config) -> Result<String> {
    let client = config.redis.client()?;
    let connecting = client.get_multiplexed_async_connection().await;
    let mut connection =
        connecting.map_err(|error| anyhow::Error::msg(redis_refusal(&client, &error)))?;
    let answer: String = redis::cmd("PING").query_async(&mut connection).await?;
    Ok(format!("answers {answer}"))
}
