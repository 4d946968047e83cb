//! Apache Kafka Connect with Debezium's JDBC sink, set up as somebody would who wants it fast.

use std::cell::RefCell;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use super::fill::TimeAs;
use super::site::{Site, tail};

/// Fetches it and starts it, relative to the root of the repository.
const SCRIPT: &str = "scripts/kafka-connect";
/// Records a batch, and the most that one poll of the consumer gives.
const BATCH: u32 = 5_000;
/// Tasks that consume and insert.
const TASKS: u32 = 2;

/// How the sink writes a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Insert {
    /// Single inserts that PostgreSQL's driver makes into multi-row ones.
    Rewritten,
    /// One statement over arrays, an option that is off by default.
    Unnest,
}

impl Insert {
    /// Both, with the names of their series.
    pub(crate) const ALL: [(Insert, &str); 2] =
        [(Insert::Rewritten, "kafka_connect"), (Insert::Unnest, "kafka_connect_unnest")];

    /// Which times it takes: arrays of microseconds are refused by the database.
    pub(crate) fn times(self) -> TimeAs {
        match self {
            Insert::Rewritten => TimeAs::Micros,
            Insert::Unnest => TimeAs::Text,
        }
    }
}

/// Fetches it where it is missing.
pub(crate) fn install() -> Result<()> {
    let status = Command::new(SCRIPT).arg("install").status();
    let status = status.with_context(|| format!("{SCRIPT}: run from the repository's root"))?;
    ensure!(status.success(), "Kafka Connect could not be fetched; `--only` leaves it out");
    Ok(())
}

/// A standalone worker, which does not outlive its benchmark.
pub(crate) struct Connect {
    child: RefCell<Child>,
    log: PathBuf,
}

impl Connect {
    /// Starts a worker that reads `topic` from its beginning.
    pub(crate) fn start(site: &Site, topic: &str, insert: Insert, round: usize) -> Result<Connect> {
        let plugins = Command::new(SCRIPT).arg("plugins").output().context(SCRIPT)?;
        let plugins = String::from_utf8(plugins.stdout)?;
        let name = format!("connect-{insert:?}-{round}").to_lowercase();
        let write = |ending: &str, lines: Vec<(&str, String)>| -> Result<PathBuf> {
            let path = site.dir.join(format!("{name}.{ending}"));
            let text: String =
                lines.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
            std::fs::write(&path, text)?;
            Ok(path)
        };
        let offsets = site.dir.join(format!("{name}.offsets"));
        let worker = write("worker", worker(site, plugins.trim(), &offsets, insert.times())?)?;
        let sink = write("sink", sink(site, topic, &name, insert)?)?;
        let log = site.dir.join(format!("{name}.log"));
        let child = Command::new(SCRIPT)
            .arg("run")
            .args([worker, sink])
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(Stdio::null())
            .spawn()
            .context(SCRIPT)?;
        Ok(Connect { child: RefCell::new(child), log })
    }

    /// An error where it has ended, or where a task of it has.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(status) = self.child.borrow_mut().try_wait()? {
            bail!("Kafka Connect ended: {status}\n{}", tail(&self.log));
        }
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        if let Some(line) = log.lines().find(|line| line.contains("Task is being killed")) {
            let causes: Vec<&str> = log.lines().filter(|l| l.starts_with("Caused by")).collect();
            bail!("Kafka Connect: {line}\n{}", causes.join("\n"));
        }
        Ok(())
    }

    /// The end of its log.
    pub(crate) fn said(&self) -> String {
        format!("Kafka Connect's last lines:\n{}", tail(&self.log))
    }

    /// Ends it.
    pub(crate) fn stop(self) -> Result<()> {
        let mut child = self.child.borrow_mut();
        child.kill()?;
        child.wait()?;
        Ok(())
    }
}

impl Drop for Connect {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn worker(
    site: &Site,
    plugins: &str,
    offsets: &Path,
    times: TimeAs,
) -> Result<Vec<(&'static str, String)>> {
    let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    Ok(vec![
        ("bootstrap.servers", site.config.kafka.brokers.clone()),
        ("key.converter", "org.apache.kafka.connect.storage.StringConverter".into()),
        ("value.converter", "org.apache.kafka.connect.json.JsonConverter".into()),
        ("value.converter.schemas.enable", "true".into()),
        ("value.converter.schema.content", schema(times)),
        ("plugin.path", plugins.into()),
        ("offset.storage.file.filename", offsets.display().to_string()),
        ("listeners", format!("http://{listen}")),
        ("consumer.auto.offset.reset", "earliest".into()),
        ("consumer.fetch.min.bytes", "65536".into()),
        ("consumer.max.partition.fetch.bytes", "10485760".into()),
    ])
}

fn sink(
    site: &Site,
    topic: &str,
    name: &str,
    insert: Insert,
) -> Result<Vec<(&'static str, String)>> {
    let url = site.database_url();
    let rest = url.split_once("://").map(|(_, rest)| rest).context("database.url")?;
    let (user, place) = rest.split_once('@').context("database.url names no user")?;
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    Ok(vec![
        ("name", name.into()),
        ("connector.class", "io.debezium.connector.jdbc.JdbcSinkConnector".into()),
        ("tasks.max", TASKS.to_string()),
        ("topics", topic.into()),
        ("connection.url", format!("jdbc:postgresql://{place}?reWriteBatchedInserts=true")),
        ("connection.username", user.into()),
        ("connection.password", password.into()),
        ("insert.mode", "insert".into()),
        ("primary.key.mode", "none".into()),
        ("schema.evolution", "none".into()),
        ("collection.name.format", "market_data_trades".into()),
        ("batch.size", BATCH.to_string()),
        ("consumer.override.max.poll.records", BATCH.to_string()),
        ("dialect.postgres.unnest.insert.enabled", (insert == Insert::Unnest).to_string()),
    ])
}

/// The table's columns as Connect's schema; money keeps its digits.
fn schema(times: TimeAs) -> String {
    let plain = |name: &str, kind: &str| serde_json::json!({ "field": name, "type": kind, "optional": false });
    let time = |name: &str| {
        let (kind, meaning) = match times {
            TimeAs::Micros => ("int64", "io.debezium.time.MicroTimestamp"),
            TimeAs::Text => ("string", "io.debezium.time.ZonedTimestamp"),
        };
        serde_json::json!({
            "field": name, "type": kind, "optional": false, "name": meaning, "version": 1,
        })
    };
    let money = |name: &str| {
        serde_json::json!({
            "field": name, "type": "bytes", "optional": false,
            "name": "org.apache.kafka.connect.data.Decimal", "version": 1,
            "parameters": { "scale": "18" },
        })
    };
    serde_json::json!({
        "type": "struct", "name": "trade", "optional": false,
        "fields": [
            time("time"),
            plain("exchange", "string"),
            plain("symbol", "string"),
            plain("trade_id", "string"),
            money("price"),
            money("amount"),
            plain("side", "string"),
            plain("sequence", "int64"),
            time("receive_time"),
            plain("origin_partition", "int32"),
            plain("origin", "int64"),
        ],
    })
    .to_string()
}
