//! One case's pipeline: its topics, database and cache, and processes of the real binary.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tapeline::config::Config;
use tapeline::kafka::{create_topics, delete_topics};
use tapeline::migrate;
use tapeline::wiring::Context;
use tokio_util::sync::CancellationToken;

use super::feed::{Feed, Mix};
use super::process::Process;
use super::site::Site;
use super::verdict::{Verdict, judge};

/// Pause between two looks at an end state that is not there yet.
const LOOK: Duration = Duration::from_millis(100);
/// After this time the last words are said again: what the cache made of them would expire before
/// a slow machine has come to look.
const LAST_WORDS: Duration = Duration::from_secs(40);
/// How long an audit may take.
const AUDIT: Duration = Duration::from_secs(120);
static NEXT: AtomicU32 = AtomicU32::new(0);

/// How one process is started.
#[derive(Debug, Clone, Default)]
pub(crate) struct How {
    /// Static member of its groups under this name.
    pub(crate) instance: Option<String>,
    /// `TAPELINE_FAILPOINTS`.
    pub(crate) failpoints: String,
    /// Another binary than the one under test.
    pub(crate) binary: Option<PathBuf>,
    /// More arguments, behind the stage.
    pub(crate) arguments: Vec<String>,
}

impl How {
    pub(crate) fn instance(name: &str) -> How {
        How { instance: Some(name.to_owned()), ..How::default() }
    }
}

/// A pipeline of its own on a site's services.
pub(crate) struct Rig {
    pub(crate) site: Arc<Site>,
    /// How the harness itself reaches the services.
    pub(crate) config: Config,
    /// How the stages are told to reach them; proxies are written in here.
    pub(crate) stages: Config,
    pub(crate) context: Context,
    dir: PathBuf,
    database: String,
    started: AtomicU32,
    foreign: AtomicU64,
}

fn replace_last_segment(url: &str, segment: &str) -> Result<String> {
    let (head, _) = url.rsplit_once('/').context("a url without a path")?;
    Ok(format!("{head}/{segment}"))
}

impl Rig {
    /// Makes topics, database and cache.
    pub(crate) async fn new(site: &Arc<Site>, name: &str) -> Result<Rig> {
        Rig::with(site, name, |_| {}).await
    }

    /// The same with other settings.
    pub(crate) async fn with(
        site: &Arc<Site>,
        name: &str,
        change: impl FnOnce(&mut Config),
    ) -> Result<Rig> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let id = format!("faults_{}_{process}_{number}", name.replace('-', "_"));
        let dir = site.dir.join(&id);
        std::fs::create_dir_all(&dir)?;
        let database = format!("test_{id}");
        let mut config = Config::default();
        config.kafka.brokers.clone_from(&site.brokers);
        config.kafka.topic_prefix = format!("{id}.");
        config.kafka.partitions = Some(2);
        config.registry.url = Some(site.registry.clone());
        config.database.url = replace_last_segment(&site.database, &database)?;
        // Redis of the services has 512 databases: one a case, emptied before use.
        let slot = 16 + (process.wrapping_mul(64) + number) % 480;
        config.redis.url = replace_last_segment(&site.redis, &slot.to_string())?;
        config.pipeline.id.clone_from(&id);
        config.http.listen = None;
        // Long enough for a machine that has no time; what is about dead members sets its own.
        config.group.session_timeout_ms = 20_000;
        config.store.takeover_ms = 1_000;
        // Small batches: more of them are under way when something happens.
        config.store.batch_rows = 500;
        change(&mut config);

        let mut admin = PgConnection::connect(&site.database).await.context("database")?;
        let create = format!("create database {database} template {}", site.template);
        admin.execute(create.as_str()).await.context("create database")?;
        let url = config.database.url.clone();
        let (topics, migrated) = tokio::join!(create_topics(&config.kafka), migrate::up(&url));
        topics?;
        migrated?;
        let mut redis = redis_connection(&config.redis.url).await?;
        let _: () = redis::cmd("FLUSHDB").query_async(&mut redis).await.context("redis")?;
        let context = Context::new(config.clone(), &CancellationToken::new()).await?;
        Ok(Rig {
            site: Arc::clone(site),
            stages: config.clone(),
            config,
            context,
            dir,
            database,
            started: AtomicU32::new(0),
            foreign: AtomicU64::new(0),
        })
    }

    /// Gives the pipeline another name on the same topics, tables and cache.
    pub(crate) async fn rename(&mut self, id: &str) -> Result<()> {
        id.clone_into(&mut self.config.pipeline.id);
        id.clone_into(&mut self.stages.pipeline.id);
        self.context = Context::new(self.config.clone(), &CancellationToken::new()).await?;
        Ok(())
    }

    /// Rows that others than a [`Feed`] had stored, for the ledger's sum.
    pub(crate) fn foreign_rows(&self) -> u64 {
        self.foreign.load(Ordering::Relaxed)
    }

    pub(crate) fn add_foreign_rows(&self, rows: u64) {
        self.foreign.fetch_add(rows, Ordering::Relaxed);
    }

    /// A feed of this pipeline's raw topics.
    pub(crate) fn feed(&self, seed: u64, mix: Mix) -> Result<Feed> {
        Feed::new(self.context.clone(), seed, mix)
    }

    /// Starts stages in one process.
    pub(crate) fn start(&self, stages: &str, how: &How) -> Result<Process> {
        let mut config = self.stages.clone();
        config.group.instance_id.clone_from(&how.instance);
        self.start_with(stages, how, &config)
    }

    /// The same with settings of its own.
    pub(crate) fn start_with(&self, stages: &str, how: &How, config: &Config) -> Result<Process> {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let name = format!(
            "{}-{number}",
            if stages.is_empty() { "all".to_owned() } else { stages.replace(',', "+") }
        );
        let file = self.dir.join(format!("{name}.json"));
        std::fs::write(&file, differences(config)?.to_string())?;
        let mut arguments = vec!["--config".to_owned(), file.display().to_string()];
        if stages.contains(',') || stages.is_empty() {
            arguments.push("run".to_owned());
            if !stages.is_empty() {
                arguments.extend(["--stages".to_owned(), stages.to_owned()]);
            }
        } else {
            arguments.push(stages.to_owned());
        }
        arguments.extend(how.arguments.iter().cloned());
        let environment = [("TAPELINE_FAILPOINTS", how.failpoints.clone())];
        let binary = how.binary.as_ref().unwrap_or(&self.site.binary);
        let log = self.dir.join(format!("{name}.log"));
        Process::start(&name, binary, &arguments, &environment, log)
    }

    /// A connection to the case's database, past all proxies.
    pub(crate) async fn database(&self) -> Result<PgConnection> {
        PgConnection::connect(&self.config.database.url).await.context("database")
    }

    /// A connection to the case's cache, past all proxies.
    pub(crate) async fn redis(&self) -> Result<redis::aio::MultiplexedConnection> {
        redis_connection(&self.config.redis.url).await
    }

    /// A single number from the database.
    pub(crate) async fn count(&self, sql: &str) -> Result<i64> {
        let mut database = self.database().await?;
        Ok(sqlx::query_scalar(sql).fetch_one(&mut database).await?)
    }

    /// Waits until `sql` gives at least `least`.
    pub(crate) async fn reaches(&self, sql: &str, least: i64, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let count = self.count(sql).await?;
            if count >= least {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{count} of {least} after {limit:?}: {sql}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends the feed and waits until everything sent is where it belongs; the verdict is the last
    /// one before `limit`. Fails at once where one of `running` has ended.
    pub(crate) async fn settle(
        &self,
        feed: &mut Feed,
        running: &mut [&mut Process],
        limit: Duration,
    ) -> Result<(Verdict, Duration)> {
        let all_run = || running.iter_mut().try_for_each(|process| process.still_runs());
        self.settle_keeping(feed, all_run, limit).await
    }

    /// The same where `keep` looks after the processes between two looks.
    pub(crate) async fn settle_keeping(
        &self,
        feed: &mut Feed,
        mut keep: impl FnMut() -> Result<()>,
        limit: Duration,
    ) -> Result<(Verdict, Duration)> {
        let began = Instant::now();
        let mut sent = feed.finish().await?;
        let mut said = Instant::now();
        loop {
            let late = began.elapsed() > limit;
            // Not before the last look, which would find them under way.
            if !late && said.elapsed() > LAST_WORDS {
                sent = feed.finish().await?;
                said = Instant::now();
            }
            let mut verdict = judge(self, &sent).await?;
            if verdict.is_clean() {
                verdict.wrong.extend(self.audit().await?);
            }
            if verdict.is_clean() || late {
                return Ok((verdict, began.elapsed()));
            }
            keep()?;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What `tapeline audit` finds wrong, as people run it.
    pub(crate) async fn audit(&self) -> Result<Option<String>> {
        let how = How { arguments: vec!["--json".to_owned()], ..How::default() };
        let mut audit = self.start_with("audit", &how, &self.config)?;
        let status = audit.ended_within(AUDIT).await?;
        let status = status.with_context(|| format!("the audit took longer than {AUDIT:?}"))?;
        Ok((!status.success()).then(|| format!("audit: {status}: {}", audit.last_lines())))
    }

    /// Removes what the case made, unless somebody will want to look at it.
    pub(crate) async fn finish_if(self, verdict: &Verdict) -> Result<()> {
        if verdict.is_clean() { self.finish().await } else { Ok(()) }
    }

    /// Removes what the case made.
    pub(crate) async fn finish(self) -> Result<()> {
        delete_topics(&self.config.kafka).await?;
        let mut admin = PgConnection::connect(&self.site.database).await?;
        let drop = format!("drop database {} with (force)", self.database);
        admin.execute(drop.as_str()).await?;
        std::fs::remove_dir_all(&self.dir)?;
        Ok(())
    }
}

async fn redis_connection(url: &str) -> Result<redis::aio::MultiplexedConnection> {
    let client = redis::Client::open(url).context("redis url")?;
    client.get_multiplexed_async_connection().await.context("redis")
}

/// Only what is set otherwise: an older binary knows fewer keys and refuses those it does not.
fn differences(config: &Config) -> Result<serde_json::Value> {
    let (mut changed, usual) =
        (serde_json::to_value(config)?, serde_json::to_value(Config::default())?);
    keep_changed(&mut changed, &usual);
    Ok(changed)
}

fn keep_changed(changed: &mut serde_json::Value, usual: &serde_json::Value) {
    let Some(keys) = changed.as_object_mut() else { return };
    keys.retain(|key, value| {
        let usual = usual.get(key);
        let is_other = usual != Some(value);
        usual.into_iter().for_each(|usual| keep_changed(value, usual));
        is_other
    });
}
