//! Owners of partitions that lose them without knowing, and owners that come and go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tapeline::config::GroupProtocol;

use super::super::feed::Mix;
use super::super::process::{Process, Signal};
use super::super::rig::{How, Rig};
use super::super::{Outcome, Run};
use super::{PATIENCE, SETTLE, eventually, together};
use crate::proxy::{Proxy, address, through};
use crate::random::Random;

/// Events a second.
const RATE: u64 = 300;
/// Session timeout where members are frozen, in milliseconds.
const SESSION_MS: u64 = 2_000;

/// The server has committed, and its answer never arrives.
pub(crate) async fn commit_unanswered(run: Arc<Run>) -> Result<Outcome> {
    let cuts = run.pick(6, 60);
    let mut rig = Rig::new(run.site(), "commit").await?;
    let proxy = Proxy::start(0, address(&rig.config.database.url)?, b"commit\0").await?;
    let mut rest = rig.start("validate,cache,candles", &How::instance("rest"))?;
    rig.stages.database.url = through(&rig.config.database.url, proxy.port)?;
    let mut store = rig.start("store", &How::instance("one"))?;
    let flow = rig.feed(run.seed, Mix::default())?.flow(RATE);
    rig.reaches("select count(*) from tapeline_ledger", 1, PATIENCE).await?;
    let mut random = Random::named(run.seed, "commit");
    while proxy.cut() < cuts {
        // Sometimes the answers to the COMMITs that look for the lost one are lost as well.
        let these = 1 + random.below(3) as u32;
        let before = proxy.cut();
        proxy.cut_replies(these);
        eventually("replies to COMMIT are cut off", || proxy.cut() >= before + these).await?;
        store.still_runs()?;
    }
    let mut feed = flow.stop().await?;
    let (verdict, recovered) = rig.settle(&mut feed, &mut [&mut store, &mut rest], SETTLE).await?;
    let found = store.said().matches("whose commit went unanswered is there").count();
    let notes = vec![format!("{found} times the batch was found to be there")];
    ensure!(found > 0, "no batch was ever found again after its commit went unanswered");
    drop((store, rest));
    rig.finish_if(&verdict).await?;
    Ok(Outcome { runs: u64::from(proxy.cut()), verdict, recovered, notes, skipped: None })
}

/// Where a stage is frozen so that its first deed after the thaw is to write.
const BEFORE_WRITING: [(&str, &str); 4] = [
    ("store", "store.before_begin"),
    ("validate", "validate.before_produce"),
    ("candles", "candles.before_produce"),
    ("cache", "cache.before_write"),
];

/// A process that takes no note of time, and one that takes its place.
pub(crate) async fn zombie(run: Arc<Run>) -> Result<Outcome> {
    let stages = BEFORE_WRITING.map(|(stage, place)| zombies(&run, stage, place));
    together(stages).await
}

async fn zombies(run: &Run, stage: &str, place: &str) -> Result<Outcome> {
    let rounds: u32 = run.pick(1, 10);
    let rig = Rig::with(run.site(), "zombie", |config| {
        config.group.session_timeout_ms = SESSION_MS;
    })
    .await?;
    let others: Vec<&str> =
        BEFORE_WRITING.iter().map(|(other, _)| *other).filter(|other| *other != stage).collect();
    let mut rest = start_rest(&rig, &others.join(","))?;
    let flow = rig.feed(run.seed, Mix::default())?.flow(RATE);
    let mut peer = rig.start(stage, &How::default())?;
    taken(&peer, 0).await?;
    let mut random = Random::named(run.seed, stage);
    let (mut refused, mut told) = (0, 0);
    for _ in 0..rounds {
        let failpoints = format!("{place}:{}:stop", 1 + random.below(5));
        let mut zombie = rig.start(stage, &How { failpoints, ..How::default() })?;
        eventually("the process freezes before it writes", || zombie.is_frozen()).await?;
        let before = times_taken(&peer);
        taken(&peer, before).await?;
        let before = times_taken(&zombie);
        zombie.signal(Signal::Continue)?;
        // It finds out: refused at its write, or told by the group.
        eventually("the zombie ends or begins anew", || {
            zombie.ended().is_ok_and(|ended| ended.is_some()) || times_taken(&zombie) > before
        })
        .await?;
        match zombie.ended()? {
            Some(status) => {
                ensure!(!status.success(), "{} ended with {status}", zombie.name);
                refused += 1;
            }
            None => {
                told += 1;
                zombie.stop().await?;
            }
        }
        peer.still_runs()?;
    }
    let mut feed = flow.stop().await?;
    let (verdict, recovered) = rig.settle(&mut feed, &mut [&mut peer, &mut rest], SETTLE).await?;
    drop((peer, rest));
    rig.finish_if(&verdict).await?;
    ensure!(stage != "store" || refused > 0, "no write of a zombie was refused");
    let notes = vec![format!("{stage}: {refused} zombies ended refused, {told} began anew")];
    Ok(Outcome { runs: u64::from(rounds), verdict, recovered, notes, skipped: None })
}

/// The stages beside the one that is frozen, which have time enough.
fn start_rest(rig: &Rig, stages: &str) -> Result<Process> {
    let mut config = rig.stages.clone();
    config.group.session_timeout_ms = 30_000;
    rig.start_with(stages, &How::default(), &config)
}

/// How often a process said that it took partitions.
fn times_taken(process: &Process) -> usize {
    process.said().matches("partitions taken").count()
}

async fn taken(process: &Process, before: usize) -> Result<()> {
    let what = format!("{} takes partitions", process.name);
    eventually(&what, || times_taken(process) > before).await
}

/// Frozen while the database waits for the rest of a COPY: no timeout of PostgreSQL ends that.
pub(crate) async fn frozen(run: Arc<Run>) -> Result<Outcome> {
    let rounds: u32 = run.pick(1, 10);
    let rig = Rig::with(run.site(), "frozen", |config| {
        config.group.session_timeout_ms = SESSION_MS;
    })
    .await?;
    let mut rest = start_rest(&rig, "validate,cache,candles")?;
    let flow = rig.feed(run.seed, Mix::default())?.flow(RATE);
    let (mut longest, mut ended) = (Duration::ZERO, 0);
    for round in 0..rounds {
        let pass = 1 + Random::named(run.seed, &format!("frozen {round}")).below(4);
        let failpoints = format!("store.mid_copy:{pass}:stop");
        let mut frozen = rig.start("store", &How { failpoints, ..How::default() })?;
        eventually("the store freezes in mid-COPY", || frozen.is_frozen()).await?;
        let since =
            rig.count("select (extract(epoch from clock_timestamp()) * 1000)::bigint").await?;
        let began = Instant::now();
        let successor = rig.start("store", &How::default())?;
        let moved = format!(
            "select count(distinct partition) from tapeline_ledger where topic like '%.trade'
                and written_at > to_timestamp({since} / 1000.0)"
        );
        let partitions = i64::from(rig.config.kafka.partitions.unwrap_or(1));
        rig.reaches(&moved, partitions, Duration::from_secs(30)).await?;
        longest = longest.max(began.elapsed());
        ended += successor.said().matches("its backend was ended").count();
        frozen.signal(Signal::Continue)?;
        let status = frozen.ended_within(PATIENCE).await?;
        let status = status.context("the thawed store goes on as if nothing had happened")?;
        ensure!(!status.success(), "the thawed store ended with {status}");
        successor.stop().await?;
    }
    let mut store = rig.start("store", &How::default())?;
    let mut feed = flow.stop().await?;
    let (verdict, recovered) = rig.settle(&mut feed, &mut [&mut store, &mut rest], SETTLE).await?;
    ensure!(ended > 0, "no successor ended the frozen backend");
    drop((store, rest));
    rig.finish_if(&verdict).await?;
    let notes = vec![format!(
        "at most {:.1} s from the successor's start until every partition moved on; {ended} backends ended",
        longest.as_secs_f64()
    )];
    Ok(Outcome { runs: u64::from(rounds), verdict, recovered, notes, skipped: None })
}

/// Members join and leave every one to three seconds.
pub(crate) async fn storm(run: Arc<Run>) -> Result<Outcome> {
    let protocols = [GroupProtocol::Classic, GroupProtocol::Consumer];
    together(protocols.map(|protocol| storm_of(&run, protocol))).await
}

async fn storm_of(run: &Run, protocol: GroupProtocol) -> Result<Outcome> {
    let lasts = Duration::from_secs(run.pick(12, 150));
    let rig = Rig::with(run.site(), "storm", |config| {
        config.group.protocol = protocol;
        config.kafka.partitions = Some(4);
    })
    .await?;
    let mut random = Random::named(run.seed, protocol.name());
    let mut steady = rig.start("", &How::default())?;
    let mut members: Vec<Process> = Vec::new();
    let flow = rig.feed(run.seed, Mix::default())?.flow(RATE);
    rig.reaches("select count(*) from market_data_trades", 1, PATIENCE).await?;
    let first = rig.count("select count(*) from market_data_trades").await?;
    let (began, mut changes) = (Instant::now(), 0);
    while began.elapsed() < lasts {
        tokio::time::sleep(Duration::from_millis(1_000 + random.below(2_000))).await;
        steady.still_runs()?;
        if members.is_empty() || (members.len() < 3 && random.chance(500)) {
            members.push(rig.start("", &How::default())?);
        } else {
            let place = random.below(members.len() as u64) as usize;
            members.swap_remove(place).stop().await?;
        }
        changes += 1;
    }
    let stored = rig.count("select count(*) from market_data_trades").await? - first;
    let rate = stored as f64 / began.elapsed().as_secs_f64();
    ensure!(stored > 0, "nothing was stored during the storm");
    let mut feed = flow.stop().await?;
    let mut running: Vec<&mut Process> = members.iter_mut().chain([&mut steady]).collect();
    let (verdict, recovered) = rig.settle(&mut feed, &mut running, SETTLE).await?;
    drop((members, steady));
    rig.finish_if(&verdict).await?;
    let notes = vec![format!(
        "{}: {changes} changes, {rate:.0} trades a second stored meanwhile",
        protocol.name()
    )];
    Ok(Outcome { runs: changes, verdict, recovered, notes, skipped: None })
}

/// Two processes of each stage share the partitions and are replaced one by one.
pub(crate) async fn rolling(run: Arc<Run>) -> Result<Outcome> {
    let rig = Rig::new(run.site(), "rolling").await?;
    let old = How { binary: run.old.clone(), ..How::default() };
    let new = How::default();
    let stages = ["validate", "store", "cache,candles"];
    let mut members = Vec::new();
    for stage in stages {
        members.push((stage, rig.start(stage, &old)?));
        members.push((stage, rig.start(stage, &old)?));
    }
    let flow = rig.feed(run.seed, Mix::default())?.flow(RATE);
    for (_, member) in &members {
        taken(member, 0).await?;
    }
    let mut replaced = 0;
    // Forth, and back for whoever finds a fault in the new version, and forth again.
    for how in run.pick(&[&new][..], &[&new, &old, &new]) {
        for (stage, member) in &mut members {
            let started = rig.start(stage, how)?;
            taken(&started, 0).await?;
            std::mem::replace(member, started).stop().await?;
            replaced += 1;
        }
    }
    let mut feed = flow.stop().await?;
    let mut running: Vec<&mut Process> = members.iter_mut().map(|(_, member)| member).collect();
    let (verdict, recovered) = rig.settle(&mut feed, &mut running, SETTLE).await?;
    let unnamed = rig
        .count("select count(*) from tapeline_ledger where topic like '%.trade' and rules = ''")
        .await?;
    ensure!(unnamed == 0, "{unnamed} batches of the ledger do not name the version of the rules");
    drop(members);
    rig.finish_if(&verdict).await?;
    let which = if run.old.is_some() {
        "an older binary and this one"
    } else {
        "one binary, no older one was given (--old)"
    };
    Ok(Outcome { runs: replaced, verdict, recovered, notes: vec![which.to_owned()], skipped: None })
}
