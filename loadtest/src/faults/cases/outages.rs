//! Services that die, freeze, fill up or answer slowly. Their owner is the harness.

use std::cell::Cell;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::super::feed::{Feed, Mix};
use super::super::flow::Flow;
use super::super::process::Process;
use super::super::rig::{How, Rig};
use super::super::{Outcome, Run};
use super::{PATIENCE, RATE, SETTLE, eventually};
use crate::proxy::{Proxy, Weather, address, through};

/// How much a process may grow while a service is away, in bytes (invariant 8).
const GROWTH: u64 = 64 * 1024 * 1024;

/// Watches the memory of a process.
struct Memory {
    before: u64,
    most: u64,
}

impl Memory {
    fn of(process: &Process) -> Memory {
        let now = process.resident();
        Memory { before: now, most: now }
    }

    /// Looks every tenth of a second until `lasts` is over.
    async fn watch(&mut self, process: &mut Process, lasts: Duration) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < lasts {
            process.still_runs()?;
            self.most = self.most.max(process.resident());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    fn verdict(&self) -> Result<String> {
        let mib = |bytes: u64| bytes / (1024 * 1024);
        ensure!(
            self.most < self.before + GROWTH,
            "memory grew from {} to {} MiB while it had to wait",
            mib(self.before),
            mib(self.most)
        );
        Ok(format!("resident {} MiB before, {} at most", mib(self.before), mib(self.most)))
    }
}

/// A pipeline at work: everything in one process, data flowing.
struct AtWork {
    rig: Rig,
    all: Process,
    flow: Flow,
}

impl AtWork {
    async fn begin(rig: Rig, seed: u64) -> Result<AtWork> {
        let all = rig.start("", &How::default())?;
        let flow = rig.feed(seed, Mix::default())?.flow(RATE);
        rig.reaches("select count(*) from market_data_trades", 200, PATIENCE).await?;
        Ok(AtWork { rig, all, flow })
    }

    async fn end(mut self, runs: u64, notes: Vec<String>) -> Result<Outcome> {
        let mut feed: Feed = self.flow.stop().await?;
        let (verdict, recovered) = self.rig.settle(&mut feed, &mut [&mut self.all], SETTLE).await?;
        drop(self.all);
        self.rig.finish_if(&verdict).await?;
        Ok(Outcome { runs, verdict, recovered, notes, skipped: None })
    }
}

/// The database goes away in an orderly way and comes back.
pub(crate) async fn database_stopped(run: Arc<Run>) -> Result<Outcome> {
    let own = run.own().await?;
    let away = Duration::from_secs(run.pick(4, 60));
    let mut work = AtWork::begin(Rig::new(&own.site, "db-stopped").await?, run.seed).await?;
    let mut memory = Memory::of(&work.all);
    own.control().down("postgres").await?;
    memory.watch(&mut work.all, away).await?;
    own.control().up("postgres").await?;
    ensure!(work.all.said().contains("cannot write, will try again"), "nobody said that it waits");
    work.end(1, vec![memory.verdict()?]).await
}

/// The database answers slowly, through a thin line.
pub(crate) async fn database_slow(run: Arc<Run>) -> Result<Outcome> {
    let lasts = Duration::from_secs(run.pick(5, 60));
    let mut rig = Rig::new(run.site(), "db-slow").await?;
    let proxy = Proxy::start(0, address(&rig.config.database.url)?, b"").await?;
    rig.stages.database.url = through(&rig.config.database.url, proxy.port)?;
    let mut work = AtWork::begin(rig, run.seed).await?;
    let mut memory = Memory::of(&work.all);
    let latency = Duration::from_millis(50);
    proxy.set(Weather { latency, bandwidth: Some(64 * 1024), ..Weather::default() });
    memory.watch(&mut work.all, lasts).await?;
    proxy.set(Weather::default());
    proxy.reset();
    work.end(1, vec![memory.verdict()?]).await
}

/// Another transaction holds what the store wants and wants what it holds.
pub(crate) async fn deadlock(run: Arc<Run>) -> Result<Outcome> {
    let wanted = run.pick(1, 5);
    let own = run.own().await?;
    let work = AtWork::begin(Rig::new(&own.site, "deadlock").await?, run.seed).await?;
    let (mut met, began) = (0, Instant::now());
    let mut other = own.superuser(&work.rig.config.database.url).await?;
    // A waiting transaction looks for a deadlock once, after this time. The store's comes first
    // and finds it, as long as both wait by then; where they do not, this side gives way soon.
    other.execute("set deadlock_timeout = '5s'").await?;
    while met < wanted {
        ensure!(began.elapsed() < PATIENCE, "{met} deadlocks, {wanted} wanted");
        other.execute("begin; lock table market_data_ticker in exclusive mode").await?;
        // The store takes its fences first and comes to the table then.
        comes_to_wait(&mut other).await?;
        let locked =
            other.execute("select * from tapeline_fence order by 1 desc, 2 desc for update").await;
        other.execute("rollback").await?;
        if locked.is_ok() {
            met = work.all.said().matches("40P01").count() as u64;
        }
    }
    other.close().await?;
    work.end(met, Vec::new()).await
}

/// Waits until somebody waits for the table. On the connection that holds it: a new one takes as
/// long as the store's patience.
async fn comes_to_wait(holder: &mut PgConnection) -> Result<()> {
    let waits = "select count(*) from pg_locks where relation = 'market_data_ticker'::regclass and not granted";
    let deadline = Instant::now() + PATIENCE;
    while sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut *holder).await? == 0 {
        ensure!(Instant::now() < deadline, "nobody came to the table within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// The disk of the database is full. A small file system of its own, which needs root.
pub(crate) async fn disk_full(run: Arc<Run>) -> Result<Outcome> {
    let own = run.own().await?;
    let small = match own.small_disk(DISK_MIB).await {
        Ok(small) => small,
        Err(error) => return Ok(Outcome::skip(format!("no small file system here: {error:#}"))),
    };
    let rig = Rig::new(&own.site, "disk-full").await?;
    let mut admin = own.superuser(&rig.config.database.url).await?;
    for table in ["market_data_trades", "market_data_ticker"] {
        admin.execute(format!("select attach_tablespace('small', '{table}')").as_str()).await?;
    }
    let mut work = AtWork::begin(rig, run.seed).await?;
    let mut memory = Memory::of(&work.all);
    admin.execute("create table filler (bytes text) tablespace small").await?;
    admin.execute("alter table filler alter bytes set storage external").await?;
    // Until nothing more fits.
    for bytes in [1_000_000, 100_000, 8_000, 1_000] {
        let fill = format!("insert into filler select repeat('x', {bytes})");
        while admin.execute(fill.as_str()).await.is_ok() {}
    }
    eventually("the store meets the full disk", || work.all.said().contains("53100")).await?;
    memory.watch(&mut work.all, Duration::from_secs(run.pick(2, 30))).await?;
    admin.execute("drop table filler").await?;
    admin.close().await?;
    let outcome = work.end(1, vec![memory.verdict()?]).await?;
    if outcome.verdict.is_clean() {
        own.remove(small).await?;
    }
    Ok(outcome)
}

/// Size of the small disk.
const DISK_MIB: u32 = 96;

/// The broker is killed under load, frozen, and cut off without a word.
pub(crate) async fn broker(run: Arc<Run>) -> Result<Outcome> {
    let own = run.own().await?;
    let rounds: u32 = run.pick(1, 3);
    let rig = Rig::new(&own.site, "broker").await?;
    let flow = rig.feed(run.seed, Mix::default())?.flow(RATE);
    let deaths = Deaths::default();
    let faults = async {
        rig.reaches("select count(*) from market_data_trades", 200, PATIENCE).await?;
        for _ in 0..rounds {
            own.control().kill("kafka").await?;
            own.control().up("kafka").await?;
            goes_on(&rig).await?;
        }
        own.control().signal("kafka", "STOP")?;
        tokio::time::sleep(Duration::from_secs(run.pick(3, 30))).await;
        own.control().signal("kafka", "CONT")?;
        goes_on(&rig).await?;
        own.kafka.set(Weather { half_open: true, ..Weather::default() });
        tokio::time::sleep(Duration::from_secs(run.pick(4, 30))).await;
        own.kafka.set(Weather::default());
        goes_on(&rig).await?;
        own.kafka.reset();
        goes_on(&rig).await?;
        let mut feed = flow.stop().await?;
        rig.settle(&mut feed, &mut [], SETTLE).await
    };
    let (verdict, recovered) = tokio::select! {
        done = faults => done?,
        failed = supervise(&rig, "", &deaths) => bail!("the stages cannot be kept running: {failed:?}"),
    };
    rig.finish_if(&verdict).await?;
    let notes = vec![deaths.note()];
    Ok(Outcome { runs: u64::from(rounds) + 3, verdict, recovered, notes, skipped: None })
}

/// Deliveries of `validate` time out while later ones succeed: it stops loudly, and its next start
/// leaves no hole. Quarantine and the outbox of the candles are in the same position.
pub(crate) async fn delivery_timeouts(run: Arc<Run>) -> Result<Outcome> {
    let own = run.own().await?;
    let rounds: u32 = run.pick(2, 15);
    let rig = Rig::with(&own.site, "timeouts", |config| {
        let properties = &mut config.kafka.producer_properties;
        properties.insert("message.timeout.ms".to_owned(), "1500".to_owned());
        properties.insert("request.timeout.ms".to_owned(), "1000".to_owned());
    })
    .await?;
    // The harness itself must deliver everything.
    let patient = {
        let mut config = rig.config.clone();
        config.kafka.producer_properties.clear();
        tapeline::wiring::Context::new(config, &tokio_util::sync::CancellationToken::new()).await?
    };
    let mix = Mix { poison: 50, late: 50, ..Mix::default() };
    let flow = Feed::new(patient, run.seed, mix)?.flow(RATE);
    let deaths = Deaths::default();
    let faults = async {
        for _ in 0..rounds {
            goes_on(&rig).await?;
            own.kafka.set(Weather { half_open: true, ..Weather::default() });
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            own.kafka.set(Weather::default());
        }
        let mut feed = flow.stop().await?;
        rig.settle(&mut feed, &mut [], SETTLE).await
    };
    let (verdict, recovered) = tokio::select! {
        done = faults => done?,
        failed = supervise(&rig, "", &deaths) => bail!("the stages cannot be kept running: {failed:?}"),
    };
    rig.finish_if(&verdict).await?;
    ensure!(deaths.stops.get() > 0, "no delivery failed for good");
    let notes = vec![deaths.note()];
    Ok(Outcome { runs: u64::from(rounds), verdict, recovered, notes, skipped: None })
}

/// Waits until rows are stored that were not there before.
async fn goes_on(rig: &Rig) -> Result<()> {
    let rows = "select count(*) from market_data_trades";
    let before = rig.count(rows).await?;
    rig.reaches(rows, before + 100, PATIENCE).await
}

/// SIGSEGV. A broker that comes back may end its clients so: librdkafka reads past what it was told of partitions
/// without a leader. <https://github.com/confluentinc/librdkafka/issues/5280>
const CRASH: i32 = 11;

/// How often the stages ended and were started again.
#[derive(Default)]
struct Deaths {
    /// With an error of their own.
    stops: Cell<u32>,
    /// By [`CRASH`].
    crashes: Cell<u32>,
}

impl Deaths {
    fn note(&self) -> String {
        let (stops, crashes) = (self.stops.get(), self.crashes.get());
        format!("{stops} loud stops and {crashes} crashes of librdkafka, each followed by a start")
    }
}

/// Keeps the stages running as a supervisor does; returns only where that fails.
async fn supervise(rig: &Rig, stages: &str, deaths: &Deaths) -> Result<()> {
    let mut process = rig.start(stages, &How::instance("one"))?;
    loop {
        if let Some(status) = process.ended()? {
            let deaths = match (status.code(), status.signal()) {
                (Some(code), _) if code != 0 => &deaths.stops,
                (_, Some(CRASH)) => &deaths.crashes,
                _ => bail!("{} ended with {status}", process.name),
            };
            deaths.set(deaths.get() + 1);
            process = rig.start(stages, &How::instance("one"))?;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Redis is killed, flushed and restarted; no value that was shown may give way to an older one.
pub(crate) async fn redis(run: Arc<Run>) -> Result<Outcome> {
    let own = run.own().await?;
    let rounds: u32 = run.pick(1, 8);
    let work = AtWork::begin(Rig::new(&own.site, "redis").await?, run.seed).await?;
    let mut shown = Shown::default();
    for round in 0..rounds {
        shown.watch(&work.rig, Duration::from_secs(1)).await?;
        let mut redis = work.rig.redis().await?;
        let _: () = redis::cmd("FLUSHDB").query_async(&mut redis).await?;
        shown.come_back(&work.rig).await?;
        own.control().kill("redis").await?;
        own.control().up("redis").await?;
        shown.come_back(&work.rig).await?;
        own.control().down("redis").await?;
        own.control().up("redis").await?;
        shown.come_back(&work.rig).await.with_context(|| format!("round {round}"))?;
    }
    let looks = shown.looks;
    work.end(u64::from(rounds) * 3, vec![format!("{looks} values looked at, none went back")]).await
}

/// Origins of what was shown, by key.
#[derive(Default)]
struct Shown {
    newest: std::collections::BTreeMap<String, i64>,
    looks: u64,
}

impl Shown {
    /// Looks at every value once; how many there are.
    async fn look(&mut self, rig: &Rig) -> Result<usize> {
        let mut redis = rig.redis().await?;
        let keys: Vec<String> =
            redis::cmd("KEYS").arg("market_data:*:FAULT:*").query_async(&mut redis).await?;
        for key in &keys {
            let origin: Option<i64> =
                redis::cmd("HGET").arg(key).arg("origin").query_async(&mut redis).await?;
            let Some(origin) = origin else { continue };
            let newest = self.newest.entry(key.clone()).or_insert(origin);
            ensure!(origin >= *newest, "{key} showed origin {newest}, then {origin}");
            *newest = origin;
            self.looks += 1;
        }
        Ok(keys.len())
    }

    async fn watch(&mut self, rig: &Rig, lasts: Duration) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < lasts {
            self.look(rig).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Waits until as many values are shown as ever were.
    async fn come_back(&mut self, rig: &Rig) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.look(rig).await? < self.newest.len() {
            ensure!(Instant::now() < deadline, "values did not come back");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}
