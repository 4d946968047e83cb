//! Processes that are killed: at each failpoint, and at any moment inside real groups.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use tapeline_stages::failpoint::{LAST_WORDS, PLACES};

use super::super::feed::Mix;
use super::super::process::Process;
use super::super::rig::{How, Rig};
use super::super::{Outcome, Run};
use super::{PATIENCE, RATE, SETTLE};
use crate::random::Random;

const SIGKILL: i32 = 9;
/// Stages, each in a process of its own, and the beginnings of their failpoints' names.
const STAGES: [(&str, &str); 4] =
    [("validate", "validate."), ("store", "store."), ("cache", "cache."), ("candles", "candles")];
/// Kills of each stage in one round of a full run, and rounds.
const FULL: (u32, u32) = (40, 6);

/// What kills did.
#[derive(Default)]
struct Tally {
    /// By failpoint.
    kills: BTreeMap<&'static str, u64>,
    /// From the start of a process to its death at a failpoint.
    alive: Vec<Duration>,
}

/// Each round has a pipeline of its own; all stages are killed side by side while data flows.
pub(crate) async fn failpoints(run: Arc<Run>) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut kills: BTreeMap<&str, u64> = BTreeMap::new();
    let mut alive = Vec::new();
    for round in 0..run.pick(1, FULL.1) {
        let seed = run.seed.wrapping_add(u64::from(round));
        let (found, tally) = failpoint_round(&run, seed).await?;
        outcome.add(found);
        for (place, count) in tally.kills {
            *kills.entry(place).or_default() += count;
        }
        alive.extend(tally.alive);
    }
    // Those of a lifecycle are killed in a test of its own (`it/archive`).
    let of_stages = |place: &&str| STAGES.iter().any(|(_, prefix)| place.starts_with(prefix));
    for place in PLACES.into_iter().filter(of_stages) {
        if !kills.contains_key(place) {
            outcome.verdict.wrong.push(format!("no process died at {place}"));
        }
    }
    alive.sort_unstable();
    if let (Some(median), Some(longest)) = (alive.get(alive.len() / 2), alive.last()) {
        outcome.notes.push(format!(
            "from start to death at a failpoint: {:.2} s in the median, {:.2} s at most",
            median.as_secs_f64(),
            longest.as_secs_f64()
        ));
    }
    let each: Vec<String> = kills.iter().map(|(place, count)| format!("{place} {count}")).collect();
    outcome.notes.push(format!("kills: {}", each.join(", ")));
    Ok(outcome)
}

async fn failpoint_round(run: &Run, seed: u64) -> Result<(Outcome, Tally)> {
    let rig = Rig::new(run.site(), "failpoints").await?;
    // Much that is late, so that the reviser has work; poison for quarantine.
    let mix = Mix { late: 40, poison: 40, ..Mix::default() };
    let flow = rig.feed(seed, mix)?.flow(RATE);
    let loops = STAGES.map(|(stage, prefix)| {
        let places: Vec<_> = PLACES.into_iter().filter(|place| place.starts_with(prefix)).collect();
        // Quick: each place once.
        let count = if run.quick { places.len() as u32 } else { FULL.0 };
        kill_loop(&rig, stage, places, count, Random::named(seed, stage))
    });
    let done = futures_util::future::try_join_all(loops).await?;
    let (tallies, mut left): (Vec<Tally>, Vec<Process>) = done.into_iter().unzip();
    let mut tally = Tally::default();
    for one in tallies {
        for (place, count) in one.kills {
            *tally.kills.entry(place).or_default() += count;
        }
        tally.alive.extend(one.alive);
    }
    let mut feed = flow.stop().await?;
    let mut running: Vec<&mut Process> = left.iter_mut().collect();
    let (verdict, recovered) = rig.settle(&mut feed, &mut running, SETTLE).await?;
    for process in left {
        process.stop().await?;
    }
    let runs = tally.kills.values().sum();
    rig.finish_if(&verdict).await?;
    Ok((Outcome { runs, verdict, recovered, ..Outcome::default() }, tally))
}

/// Starts a stage again and again, each time with a failpoint armed, and sees it die there. The
/// last process has none and is left, since the others wait for what it does.
async fn kill_loop(
    rig: &Rig,
    stage: &str,
    places: Vec<&'static str>,
    count: u32,
    mut random: Random,
) -> Result<(Tally, Process)> {
    let mut tally = Tally::default();
    for number in 0..count {
        // Each place in turn, then by chance.
        let place = match places.get(number as usize) {
            Some(place) => *place,
            None => *random.pick(&places),
        };
        let pass = 1 + random.below(3);
        let how = How { failpoints: format!("{place}:{pass}"), ..How::instance("one") };
        let mut process = rig.start(stage, &how)?;
        let began = Instant::now();
        let Some(status) = process.ended_within(PATIENCE).await? else {
            bail!("{} did not come to {place} within {PATIENCE:?}", process.name);
        };
        let said = process.said();
        let struck = said.contains(&format!("{LAST_WORDS}{place}"));
        ensure!(
            struck && status.signal() == Some(SIGKILL),
            "{} ended with {status}, not killed at {place}: {}",
            process.name,
            said.lines().last().unwrap_or_default()
        );
        *tally.kills.entry(place).or_default() += 1;
        tally.alive.push(began.elapsed());
    }
    Ok((tally, rig.start(stage, &How::instance("one"))?))
}

/// Session timeout of the members that are killed, in milliseconds.
const SESSION_MS: u64 = 2_000;

/// Two members of each group; one of them dies at a random moment and is replaced.
pub(crate) async fn groups(run: Arc<Run>) -> Result<Outcome> {
    let kills_each = run.pick(2, 25);
    let rig = Rig::with(run.site(), "sigkill", |config| {
        config.group.session_timeout_ms = SESSION_MS;
    })
    .await?;
    let flow = rig.feed(run.seed, Mix::default())?.flow(RATE);
    let loops = STAGES.map(|(stage, _)| {
        let random = Random::named(run.seed, &format!("sigkill {stage}"));
        group_loop(&rig, stage, kills_each, random)
    });
    let mut left = futures_util::future::try_join_all(loops).await?;
    let mut feed = flow.stop().await?;
    let keep = || left.iter_mut().try_for_each(|members| members.keep(&rig));
    let (verdict, recovered) = rig.settle_keeping(&mut feed, keep, SETTLE).await?;
    let refused: u32 = left.iter().map(|members| members.refused).sum();
    for process in left.into_iter().flat_map(|members| members.processes) {
        process.stop().await?;
    }
    rig.finish_if(&verdict).await?;
    let runs = u64::from(kills_each) * STAGES.len() as u64;
    let notes = match refused {
        0 => Vec::new(),
        _ => vec![format!("{refused} members were silent for too long, ended and began anew")],
    };
    Ok(Outcome { runs, verdict, recovered, notes, ..Outcome::default() })
}

/// The members of one group.
struct Members {
    stage: &'static str,
    processes: Vec<Process>,
    /// Those that ended by themselves. Where the machine has no time for a member its group takes
    /// it for dead, and it is refused: who runs such groups starts it again.
    refused: u32,
}

/// Of one group.
const MOST_REFUSED: u32 = 10;

impl Members {
    fn keep(&mut self, rig: &Rig) -> Result<()> {
        for process in &mut self.processes {
            let Some(status) = process.ended()? else { continue };
            self.refused += 1;
            ensure!(
                status.code() == Some(1) && self.refused <= MOST_REFUSED,
                "{} ended with {status}: {}",
                process.name,
                process.last_lines()
            );
            *process = rig.start(self.stage, &How::default())?;
        }
        Ok(())
    }
}

async fn group_loop(
    rig: &Rig,
    stage: &'static str,
    kills: u32,
    mut random: Random,
) -> Result<Members> {
    let how = How::default();
    let processes = vec![rig.start(stage, &how)?, rig.start(stage, &how)?];
    let mut members = Members { stage, processes, refused: 0 };
    for _ in 0..kills {
        // Sometimes before the group has noticed the last death, sometimes well after.
        tokio::time::sleep(Duration::from_millis(500 + random.below(3_500))).await;
        members.keep(rig)?;
        let victim = random.below(members.processes.len() as u64) as usize;
        let status = members.processes[victim].kill()?;
        ensure!(status.signal() == Some(SIGKILL), "not killed: {status}");
        members.processes[victim] = rig.start(stage, &how)?;
    }
    Ok(members)
}
