//! What is printed and kept of a run.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::{Case, Outcome};

/// Results of a whole run, as in `loadtest/results/faults.json`.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    seed: u64,
    quick: bool,
    seconds: f64,
    cores: usize,
    memory_gib: u64,
    cases: Vec<Line>,
}

/// One case's results.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    fault: &'static str,
    case: &'static str,
    /// How often the fault happened.
    runs: u64,
    lost: u64,
    doubled: u64,
    changed: u64,
    recovered_s: f64,
    ok: bool,
    seconds: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    wrong: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<String>,
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}

impl Line {
    pub(crate) fn new(case: &Case, outcome: Result<Outcome>, took: Duration) -> Line {
        let mut outcome = outcome.unwrap_or_else(|error| {
            let mut outcome = Outcome::default();
            outcome.verdict.wrong.push(format!("{error:#}"));
            outcome
        });
        let verdict = std::mem::take(&mut outcome.verdict);
        let happened = outcome.runs > 0 || outcome.skipped.is_some();
        let mut wrong = verdict.wrong.clone();
        if !happened && wrong.is_empty() {
            wrong.push("the fault never happened".to_owned());
        }
        Line {
            fault: case.fault,
            case: case.name,
            runs: outcome.runs,
            lost: verdict.lost,
            doubled: verdict.doubled,
            changed: verdict.changed,
            recovered_s: seconds(outcome.recovered),
            ok: verdict.is_clean() && happened,
            seconds: seconds(took),
            notes: outcome.notes,
            wrong,
            skipped: outcome.skipped,
        }
    }
}

impl Line {
    /// Name of the case.
    pub(crate) fn name(&self) -> &'static str {
        self.case
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(reason) = &self.skipped {
            return write!(f, "{:<14} SKIPPED: {reason}", self.case);
        }
        write!(
            f,
            "{:<14} {:<4} runs {:>4}, lost {}, doubled {}, changed {}, recovered in {:.1} s ({:.0} s in all)",
            self.case,
            if self.ok { "ok" } else { "BAD" },
            self.runs,
            self.lost,
            self.doubled,
            self.changed,
            self.recovered_s,
            self.seconds
        )?;
        for note in &self.notes {
            write!(f, "\n    {note}")?;
        }
        for wrong in &self.wrong {
            write!(f, "\n    WRONG: {wrong}")?;
        }
        Ok(())
    }
}

impl Results {
    pub(crate) async fn new(
        seed: u64,
        quick: bool,
        took: Duration,
        cases: Vec<Line>,
    ) -> Result<Results> {
        let cores = std::thread::available_parallelism()?.get();
        let memory = tokio::fs::read_to_string("/proc/meminfo").await?;
        let kib = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
        let memory_gib = kib.unwrap_or(0).div_ceil(1024 * 1024);
        Ok(Results { seed, quick, seconds: seconds(took), cores, memory_gib, cases })
    }

    pub(crate) fn ok(&self) -> bool {
        self.cases.iter().all(|line| line.ok || line.skipped.is_some())
    }

    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        if let Some(dir) = file.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(file, format!("{}\n", serde_json::to_string_pretty(self)?))?;
        Ok(())
    }
}
