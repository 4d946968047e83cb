//! The fault harness: real processes and services, seeded faults, and the end state compared as
//! sets with what was sent (issue 4).

mod cases;
mod feed;
mod flow;
mod front;
pub(crate) mod process;
mod push;
mod results;
pub(crate) mod rig;
mod services;
pub(crate) mod site;
mod verdict;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use tokio::sync::OnceCell;

use self::results::{Line, Results};
use self::services::OwnServices;
use self::site::{Addresses, Site};
use self::verdict::Verdict;

/// What to run.
#[derive(Debug, clap::Args)]
pub(crate) struct FaultsArgs {
    /// Every row of the matrix in a short form.
    #[arg(long)]
    quick: bool,
    /// Repeats the schedule of a run; a new one is drawn and printed where none is given.
    #[arg(long)]
    seed: Option<u64>,
    /// Only these cases.
    #[arg(long = "case", value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    cases: Vec<String>,
    /// Say what there is, and stop.
    #[arg(long)]
    list: bool,
    /// A binary of an older version, for the rolling upgrade.
    #[arg(long, value_name = "FILE")]
    old: Option<PathBuf>,
    /// Cases that run side by side; those with services of their own never do.
    #[arg(long)]
    jobs: Option<usize>,
    /// Where the results go; a partial run does not replace those of a full one.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,
}

/// One row of the matrix.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The fault, in the words.
    pub(crate) fault: &'static str,
    /// Whether it stops services, and so needs some of its own.
    pub(crate) own: bool,
    pub(crate) run: fn(Arc<Run>) -> LocalBoxFuture<'static, Result<Outcome>>,
}

/// What a case gets.
pub(crate) struct Run {
    shared: Arc<Site>,
    own: OnceCell<OwnServices>,
    pub(crate) seed: u64,
    pub(crate) quick: bool,
    pub(crate) old: Option<PathBuf>,
}

/// What a case found.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// How often the fault happened.
    pub(crate) runs: u64,
    pub(crate) verdict: Verdict,
    /// The longest time from a fault's end until everything sent was where it belongs.
    pub(crate) recovered: Duration,
    /// Figures beside.
    pub(crate) notes: Vec<String>,
    /// Why it could not be run here.
    pub(crate) skipped: Option<String>,
}

impl Outcome {
    /// Takes in what another round of the same case found.
    pub(crate) fn add(&mut self, other: Outcome) {
        self.runs += other.runs;
        self.verdict.add(other.verdict);
        self.recovered = self.recovered.max(other.recovered);
        self.notes.extend(other.notes);
        self.skipped = self.skipped.take().or(other.skipped);
    }

    pub(crate) fn skip(reason: impl Into<String>) -> Outcome {
        Outcome { skipped: Some(reason.into()), ..Outcome::default() }
    }
}

impl Run {
    /// The shared services, which no case stops.
    pub(crate) fn site(&self) -> &Arc<Site> {
        &self.shared
    }

    /// Services of the harness's own, started when first asked for.
    pub(crate) async fn own(&self) -> Result<&OwnServices> {
        let own = self.own.get_or_try_init(|| OwnServices::start(&self.shared.dir)).await?;
        own.heal().await?;
        Ok(own)
    }

    /// `quick` in a quick run, `full` otherwise.
    pub(crate) fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// Cases that run side by side in a quick run. With more of them the longest part, the cases that stop services one after
/// the other, would wait for the processor.
const QUICK_JOBS: usize = 3;
/// The same in a full run.
const FULL_JOBS: usize = 2;
/// How long a case may take in all, in a quick and in a full run: one that hangs is bad, and the
/// others go on.
const CASE: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(1_800));

/// Runs what was asked for; whether all was well.
pub(crate) async fn run(args: FaultsArgs) -> Result<bool> {
    let all = cases::all();
    if args.list {
        for case in &all {
            println!("{:<14} {}", case.name, case.fault);
        }
        return Ok(true);
    }
    for name in &args.cases {
        if !all.iter().any(|case| case.name == name) {
            bail!("no case `{name}`; `tapeline-loadtest faults --list` names them");
        }
    }
    let whole = args.cases.is_empty();
    let chosen: Vec<Case> =
        all.into_iter().filter(|case| whole || args.cases.iter().any(|n| n == case.name)).collect();
    let seed = args.seed.unwrap_or_else(a_seed);
    println!("seed {seed} (SEED={seed} repeats it)");
    let dir = std::env::temp_dir().join(format!("tapeline-faults-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let shared = Arc::new(Site::new(Addresses::from_environment()?, "shared", dir.clone()).await?);
    let run = Arc::new(Run {
        shared,
        own: OnceCell::new(),
        seed,
        quick: args.quick,
        old: args.old.clone(),
    });
    let jobs = args.jobs.unwrap_or(if args.quick { QUICK_JOBS } else { FULL_JOBS }).max(1);
    let began = Instant::now();
    let places: Vec<&str> = chosen.iter().map(|case| case.name).collect();
    // Cases that stop services go one after the other, beside those that stop none.
    let (own, shared): (Vec<Case>, Vec<Case>) =
        chosen.into_iter().partition(|case| case.own && jobs > 1);
    let queue = |cases: Vec<Case>, jobs: usize| {
        let done = futures_util::stream::iter(cases.into_iter().map(|case| one(&run, case)));
        done.buffer_unordered(jobs).collect::<Vec<Line>>()
    };
    let beside = if own.is_empty() { jobs } else { (jobs - 1).max(1) };
    let (own, shared) = futures_util::join!(queue(own, 1), queue(shared, beside));
    let mut lines: Vec<Line> = own.into_iter().chain(shared).collect();
    lines.sort_by_key(|line| places.iter().position(|name| *name == line.name()));
    let results = Results::new(seed, args.quick, began.elapsed(), lines).await?;
    let full = whole && !args.quick;
    let name = if full { "faults.json" } else { "faults-partial.json" };
    let usual = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/results")).join(name);
    let file = args.results.unwrap_or(usual);
    results.write(&file).with_context(|| file.display().to_string())?;
    run.shared.finish().await?;
    if let Some(own) = run.own.get() {
        own.finish().await?;
    }
    if results.ok() {
        std::fs::remove_dir_all(&dir)?;
    } else {
        println!("logs of what went wrong are in {}", dir.display());
    }
    Ok(results.ok())
}

async fn one(run: &Arc<Run>, case: Case) -> Line {
    let began = Instant::now();
    let limit = run.pick(CASE.0, CASE.1);
    let outcome = tokio::time::timeout(limit, (case.run)(Arc::clone(run))).await;
    let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("not done within {limit:?}")));
    let line = Line::new(&case, outcome, began.elapsed());
    println!("{line}");
    line
}

/// A seed nobody chose.
fn a_seed() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    // Small enough to be typed.
    std::hash::RandomState::new().build_hasher().finish() % 1_000_000
}
