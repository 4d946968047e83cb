//! Topics, a database and a cache of the demo's own, so that it touches nothing else.

use anyhow::{Context, Result};
use sqlx::{Connection, Executor};

use crate::config::Config;
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
    migrate::up(&config.database.url).await?;
    create_topics(&config.kafka).await?;
    let client = redis::Client::open(config.redis.url.as_str()).context("redis.url")?;
    let mut cache = client.get_multiplexed_async_connection().await.context("redis")?;
    let _: () = redis::cmd("FLUSHDB").query_async(&mut cache).await.context("redis")?;
    Ok(config)
}

/// `scheme://authority/path?query` with another path.
fn with_path(url: &str, path: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, None), |(b, q)| (b, Some(q)));
    let authority = base.find("://").map_or(0, |at| at + 3);
    let end = base[authority..].find('/').map_or(base.len(), |at| authority + at);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}/{path}{query}", &base[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_path_of_a_url_changes() {
        for (url, expected) in [
            ("postgres://a:b@h:1/x", "postgres://a:b@h:1/demo"),
            ("postgres://a:b@h:1", "postgres://a:b@h:1/demo"),
            ("postgres://a:b@h:1/x?sslmode=require", "postgres://a:b@h:1/demo?sslmode=require"),
        ] {
            assert_eq!(with_path(url, "demo"), expected);
        }
    }
}
