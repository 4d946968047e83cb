//! A pipeline of a test's own on the real services: its topics, its database, its cache.

use std::future::Future;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::{Connection, Executor, PgConnection};
use tapeline::config::Config;
use tapeline::kafka::{create_topics, delete_topics};
use tapeline::telemetry::Readiness;
use tapeline::wiring::{Context, StageName, run_stage};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a condition may take to come true before a test fails.
const PATIENCE: Duration = Duration::from_secs(90);
static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) fn env(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Where databases are made.
pub(crate) fn admin_url() -> String {
    env("TAPELINE__DATABASE__URL", "postgres://tapeline:tapeline@127.0.0.1:15432/tapeline")
}

/// What they are copied from.
pub(crate) fn template() -> String {
    env("TAPELINE_DB_TEMPLATE", "tapeline_template")
}

/// A pipeline that only one test uses.
pub(crate) struct Pipeline {
    pub(crate) context: Context,
    pub(crate) shutdown: CancellationToken,
    registry: CancellationToken,
    admin_url: String,
    database: String,
}

impl Pipeline {
    /// Fresh topics, database and cache; a registry of its own.
    pub(crate) async fn new(name: &str) -> Pipeline {
        Pipeline::with(name, |_| {}).await
    }

    /// The same with other settings.
    pub(crate) async fn with(name: &str, change: impl FnOnce(&mut Config)) -> Pipeline {
        if std::env::var_os("TAPELINE_TEST_LOG").is_some() {
            let _ = tracing_subscriber::fmt().with_writer(std::io::stderr).try_init();
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{name}_{}_{number}", std::process::id());
        let brokers = env("TAPELINE__KAFKA__BROKERS", "127.0.0.1:19092");
        let admin_url = admin_url();
        let redis_url = env("TAPELINE__REDIS__URL", "redis://127.0.0.1:16379/0");
        let template = template();

        let registry = CancellationToken::new();
        // A test that fails in here must not wait for a registry that nobody stops.
        let failed = registry.clone().drop_guard();
        let running = tapeline::registry::start(
            tapeline::registry::RegistryOptions {
                brokers: brokers.clone(),
                properties: Default::default(),
                listen: "127.0.0.1:0".to_owned(),
                topic: format!("_schemas_{id}"),
                replication: 1,
            },
            registry.clone(),
        )
        .await
        .expect("registry");

        let database = format!("test_{id}");
        let mut admin = PgConnection::connect(&admin_url).await.expect("database");
        let create = format!("create database {database} template {template}");
        admin.execute(create.as_str()).await.expect("create database");

        let mut config = Config::default();
        config.kafka.brokers = brokers;
        config.kafka.topic_prefix = format!("{id}.");
        config.kafka.partitions = Some(4);
        config.registry.url = Some(running.url());
        config.database.url = replace_last_segment(&admin_url, &database);
        // Redis of the services has 512 databases: one a test, emptied before use.
        let slot = 16 + (std::process::id() * 16 + number) % 480;
        config.redis.url = replace_last_segment(&redis_url, &slot.to_string());
        config.pipeline.id = id;
        config.group.session_timeout_ms = 6_000;
        config.connect.record.enabled = false;
        change(&mut config);

        create_topics(&config.kafka).await.expect("topics");
        tapeline::migrate::up(&config.database.url).await.expect("migrations");
        let client = redis::Client::open(config.redis.url.as_str()).expect("redis url");
        let mut cache = client.get_multiplexed_async_connection().await.expect("redis");
        let _: () = redis::cmd("FLUSHDB").query_async(&mut cache).await.expect("flush");
        let shutdown = CancellationToken::new();
        let context = Context::new(config, &shutdown).await.expect("context");
        failed.disarm();
        Pipeline { context, shutdown, registry, admin_url, database }
    }

    /// Starts a stage.
    pub(crate) fn start(&self, stage: StageName) -> Running {
        self.start_member(&self.context, stage)
    }

    /// The binary on this pipeline, with other settings where `change` says so, to be run in a
    /// process of its own. It serves no metrics unless told to.
    pub(crate) fn command(&self, args: &[&str], change: impl FnOnce(&mut Config)) -> Command {
        let mut config = (*self.context.config).clone();
        config.http.listen = None;
        change(&mut config);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}_{number}.json", config.pipeline.id);
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, serde_json::to_string(&config).expect("config")).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tapeline"));
        command
            .arg("--config")
            .arg(path)
            .args(args)
            .env_remove("TAPELINE__DATABASE__URL")
            .env_remove("TAPELINE__REDIS__URL")
            .env_remove("TAPELINE__REGISTRY__URL")
            .stdout(Stdio::null());
        command
    }

    /// Another instance of the pipeline's stages, with other settings.
    pub(crate) fn member(&self, change: impl FnOnce(&mut Config)) -> Context {
        let mut config = (*self.context.config).clone();
        change(&mut config);
        let mut context = self.context.clone();
        context.config = Arc::new(config);
        context.readiness = Readiness::new();
        context
    }

    /// Starts a stage of such an instance.
    pub(crate) fn start_member(&self, context: &Context, stage: StageName) -> Running {
        let stop = self.shutdown.child_token();
        let (context, token) = (context.clone(), stop.clone());
        let task = tokio::spawn(async move { run_stage(stage, &context, token).await });
        Running { stop, task }
    }

    /// A connection to the test's database.
    pub(crate) async fn database(&self) -> PgConnection {
        PgConnection::connect(&self.context.config.database.url).await.expect("database")
    }

    /// A single number from the database.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        let mut connection = self.database().await;
        sqlx::query_scalar(sql).fetch_one(&mut connection).await.expect(sql)
    }

    /// Removes what the test made.
    pub(crate) async fn finish(self) {
        self.shutdown.cancel();
        let own = format!("{}_", self.context.config.pipeline.id);
        for file in std::fs::read_dir(std::env::temp_dir()).expect("files").flatten() {
            if file.file_name().to_string_lossy().starts_with(&own) {
                std::fs::remove_file(file.path()).expect("removed");
            }
        }
        delete_topics(&self.context.config.kafka).await.expect("delete topics");
        self.registry.cancel();
        let mut admin = PgConnection::connect(&self.admin_url).await.expect("database");
        let drop = format!("drop database {} with (force)", self.database);
        let deadline = Instant::now() + DROP;
        while let Err(error) = admin.execute(drop.as_str()).await {
            // A superuser's process in it ends by itself: autovacuum, or one that PgBouncer asks for passwords with.
            assert!(Instant::now() < deadline, "drop database: {error}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// How long a database may be in use by others at the end of its test.
const DROP: Duration = Duration::from_secs(60);

/// A test that fails must not wait for stages that nobody stops.
impl Drop for Pipeline {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.registry.cancel();
    }
}

/// A process that does not outlive its test.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Waits for it to end by itself.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        eventually("the process ends", || {
            let ended = self.0.try_wait().expect("waits").is_some();
            async move { ended }
        })
        .await;
        self.0.wait().expect("waits")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn replace_last_segment(url: &str, segment: &str) -> String {
    let (head, _) = url.rsplit_once('/').expect("a url with a path");
    format!("{head}/{segment}")
}

/// A stage under way.
pub(crate) struct Running {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// Stops it as SIGTERM does, and waits.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("joins").expect("the stage ends well");
    }

    /// Whether it has stopped by itself.
    pub(crate) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits for it to stop by itself, and returns why.
    pub(crate) async fn failure(self) -> String {
        let ended = self.task.await.expect("joins");
        format!("{:#}", ended.expect_err("the stage must refuse to go on"))
    }
}

/// Waits until `condition` holds; fails the test with `what` if it does not in time.
pub(crate) async fn eventually<F: Future<Output = bool>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
