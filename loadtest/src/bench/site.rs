//! What a benchmark runs on: topics, a database and a cache of its own, removed afterwards.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use sqlx::{Connection, Executor, PgConnection};
use tapeline::config::{Config, with_path};
use tapeline::kafka::{create_topics, delete_topics};
use tapeline::wiring::Context;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::proxy::{Proxy, address, through};

/// Redis database of the benchmarks; emptied before and after.
const REDIS_DATABASE: &str = "2";
/// What the topics of registries begin with.
const SCHEMAS: &str = "_schemas_";
/// How long Kafka may take to name its topics.
const ASK: Duration = Duration::from_secs(10);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Topics, a database and a cache of one benchmark's own.
pub(crate) struct Site {
    /// The configuration for it.
    pub(crate) config: Config,
    /// What stages need, as the benchmark's own process knows it.
    pub(crate) context: Context,
    /// Directory for configurations and logs.
    pub(crate) dir: PathBuf,
    registry: DropGuard,
    admin_url: String,
    database: String,
    more_topics: Vec<String>,
}

impl Site {
    /// A site called `name`, with settings changed by `change`.
    pub(crate) async fn new(name: &str, change: impl FnOnce(&mut Config)) -> Result<Site> {
        let mut config = Config::load(None)?;
        let id = format!("{}{name}", own_prefix());
        let dir = std::env::temp_dir().join(&id);
        std::fs::create_dir_all(&dir).with_context(|| format!("{}", dir.display()))?;
        let registry = CancellationToken::new();
        // Its reader would keep a process alive that fails.
        let stop_registry = registry.clone().drop_guard();
        let schemas = format!("{SCHEMAS}{id}");
        let running = tapeline::registry::start(
            tapeline::registry::RegistryOptions {
                brokers: config.kafka.brokers.clone(),
                properties: config.kafka.properties.clone(),
                listen: "127.0.0.1:0".to_owned(),
                topic: schemas.clone(),
                replication: 1,
            },
            registry,
        )
        .await
        .context("registry")?;
        let admin_url = config.database.url.clone();
        let mut admin = PgConnection::connect(&admin_url).await.context("database")?;
        let template =
            std::env::var("TAPELINE_DB_TEMPLATE").unwrap_or_else(|_| "template1".to_owned());
        let create = format!("create database {id} template {template}");
        admin.execute(create.as_str()).await.context("creating the benchmark's database")?;
        config.database.url = with_path(&admin_url, &id);
        config.redis.url = with_path(&config.redis.url, REDIS_DATABASE);
        config.registry.url = Some(running.url());
        config.kafka.topic_prefix = format!("{id}.");
        config.pipeline.id.clone_from(&id);
        "warn".clone_into(&mut config.log.level);
        change(&mut config);
        tapeline::migrate::up(&with_path(&admin_url, &id)).await?;
        create_topics(&config.kafka).await?;
        empty_cache(&config).await?;
        let context = Context::new(config.clone(), &CancellationToken::new()).await?;
        let more_topics = vec![schemas];
        let registry = stop_registry;
        Ok(Site { config, context, dir, registry, admin_url, database: id, more_topics })
    }

    /// The same, where stages reach the database through a proxy.
    pub(crate) async fn behind_a_proxy(
        name: &str,
        change: impl FnOnce(&mut Config),
    ) -> Result<(Proxy, Site)> {
        let url = Config::load(None)?.database.url;
        let proxy = Proxy::start(0, address(&url)?, b"").await?;
        let url = through(&url, proxy.port)?;
        let site = Site::new(name, |config| {
            config.database.url = with_path(&url, &config.pipeline.id);
            change(config);
        });
        Ok((proxy, site.await?))
    }

    /// A connection to its database that goes through no proxy.
    pub(crate) async fn database(&self) -> Result<PgConnection> {
        let url = with_path(&self.admin_url, &self.database);
        PgConnection::connect(&url).await.context("the benchmark's database")
    }

    /// The URL of its database, through no proxy.
    pub(crate) fn database_url(&self) -> String {
        with_path(&self.admin_url, &self.database)
    }

    /// Creates a topic beside the pipeline's own.
    pub(crate) async fn create_topic(&mut self, name: &str, partitions: i32) -> Result<()> {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let options = AdminOptions::new();
        for result in admin(&self.config)?.create_topics([&topic], &options).await? {
            result.map_err(|(name, code)| anyhow::anyhow!("topic {name}: {code}"))?;
        }
        self.more_topics.push(name.to_owned());
        Ok(())
    }

    /// Empties the trades, the fences and the ledger.
    pub(crate) async fn empty(&self) -> Result<()> {
        let mut database = self.database().await?;
        let truncate = "truncate market_data_trades, tapeline_fence, tapeline_ledger";
        database.execute("truncate market_data_trades").await.context("emptying the trades")?;
        database.execute(truncate).await.context("emptying the tables")?;
        Ok(())
    }

    /// Removes all of it.
    pub(crate) async fn remove(self) -> Result<()> {
        delete_topics(&self.config.kafka).await?;
        let names: Vec<&str> = self.more_topics.iter().map(String::as_str).collect();
        admin(&self.config)?.delete_topics(&names, &AdminOptions::new()).await?;
        drop(self.registry);
        empty_cache(&self.config).await?;
        let mut admin = PgConnection::connect(&self.admin_url).await.context("database")?;
        let drop = format!("drop database {} with (force)", self.database);
        admin.execute(drop.as_str()).await.context("dropping the benchmark's database")?;
        std::fs::remove_dir_all(&self.dir).context("removing the benchmark's directory")
    }
}

/// What topics, databases and directories of this process begin with.
fn own_prefix() -> String {
    format!("bench_{}_", std::process::id())
}

/// Removes what sites of this process left: those of a benchmark that failed or was interrupted.
pub(crate) async fn remove_left_over() -> Result<()> {
    let prefix = own_prefix();
    let config = Config::load(None)?;
    let client = admin(&config)?;
    let names: Vec<String> = {
        let metadata = client.inner().fetch_metadata(None, ASK).context("kafka's topics")?;
        let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
        names.filter(|name| name.trim_start_matches(SCHEMAS).starts_with(&prefix)).collect()
    };
    let topics: Vec<&str> = names.iter().map(String::as_str).collect();
    if !topics.is_empty() {
        client.delete_topics(&topics, &AdminOptions::new()).await?;
    }
    let mut database = PgConnection::connect(&config.database.url).await.context("database")?;
    let databases: Vec<String> =
        sqlx::query_scalar("select datname::text from pg_database where starts_with(datname, $1)")
            .bind(&prefix)
            .fetch_all(&mut database)
            .await?;
    for name in databases {
        database.execute(format!("drop database {name} with (force)").as_str()).await?;
    }
    for entry in std::fs::read_dir(std::env::temp_dir())? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn admin(config: &Config) -> Result<AdminClient<DefaultClientContext>> {
    config.kafka.client().create().context("kafka admin client")
}

async fn empty_cache(config: &Config) -> Result<()> {
    let client = redis::Client::open(config.redis.url.as_str()).context("redis.url")?;
    let mut cache = client.get_multiplexed_async_connection().await.context("redis")?;
    redis::cmd("FLUSHDB").query_async::<()>(&mut cache).await.context("redis")
}

/// Waits until `condition` gives a value; an error naming `what` where it does not within `patience`.
pub(crate) async fn eventually<T>(
    what: &str,
    patience: Duration,
    mut condition: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition().await? {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("not within {patience:?}: {what}");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The last lines of a log, to say why something failed.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
