//! Topics, a database and a cache of the demo's own, so that it touches nothing else.

use anyhow::{Context, Result};
use sqlx::{Connection, Executor};

use crate::config::{Config, with_path};
use crate::kafka::create_topics;
use crate::migrate;

/// Database of the demo; made anew each time.
pub(super) const DATABASE: &str = "tapeline_demo";
/// Redis database of the demo; emptied each time.
const REDIS_DATABASE: &str = "1";

/// The configuration of a demo called `id`, with everything it needs created.
pub(super) async fn prepare(mut config: Config, id: &str) -> Result<Config> {
    let mut admin = migrate::connect(&config.database.url).await?;
    let drop = format!("drop database if exists {DATABASE} with (force)");
    admin.execute(drop.as_str()).await.context("removing the last demo's database")?;
    let template = std::env::var("TAPELINE_DB_TEMPLATE").unwrap_or_else(|_| "template1".to_owned());
    let create = format!("create database {DATABASE} template {template}");
    admin.execute(create.as_str()).await.context("creating the demo's database")?;
    admin.close().await?;
    config.database.url = with_path(&config.database.url, DATABASE);
    config.redis.url = with_path(&config.redis.url, REDIS_DATABASE);
    config.kafka.topic_prefix = format!("{id}.");
    id.clone_into(&mut config.pipeline.id);
    config.influx.url = None; // no stage of the demo writes there
    migrate::up(&config.database.url).await?;
    create_topics(&config.kafka).await?;
    let client = config.redis.client()?;
    let mut cache = client.get_multiplexed_async_connection().await.context("redis")?;
    let _: () = redis::cmd("FLUSHDB").query_async(&mut cache).await.context("redis")?;
    Ok(config)
}
