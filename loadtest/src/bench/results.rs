//! The results: medians, and beside them the rounds they come from.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// One measured figure in each round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series {
    /// What is counted: `rows/s`, `ms`, `MiB`.
    pub(crate) unit: String,
    /// Middle of the rounds.
    pub(crate) median: f64,
    /// Largest less smallest round, as a part of the median.
    pub(crate) spread: f64,
    /// The rounds, in order.
    pub(crate) rounds: Vec<f64>,
}

impl Series {
    fn new(unit: &str, rounds: Vec<f64>) -> Series {
        let mut sorted = rounds.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = match sorted.len() {
            0 => 0.0,
            count if count % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        };
        let range = sorted.last().unwrap_or(&0.0) - sorted.first().unwrap_or(&0.0);
        let spread = if median == 0.0 { 0.0 } else { range / median };
        Series { unit: unit.to_owned(), median, spread, rounds }
    }
}

/// Latencies of one round, as the plot shows them: percentile and milliseconds.
pub(crate) type Curve = Vec<(f64, f64)>;

/// The machine and the programs that were measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Machine {
    /// Name of the processor.
    pub(crate) processor: String,
    /// Cores that the operating system offers.
    pub(crate) cores: usize,
    /// Memory in GiB.
    pub(crate) memory_gib: f64,
    /// The operating system and its kernel.
    pub(crate) system: String,
    /// PostgreSQL's version.
    pub(crate) postgres: String,
    /// TimescaleDB's version.
    pub(crate) timescaledb: String,
    /// Mean number of runnable processes in the minute before the run: 0 on a quiet machine.
    pub(crate) load_before: f64,
}

/// Everything of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Results {
    /// Day of the run, UTC.
    pub(crate) date: String,
    /// Commit that was measured; ends with `+` where files had been changed since.
    pub(crate) commit: String,
    /// Whether sizes were those of a quick run.
    pub(crate) quick: bool,
    /// Where it ran.
    pub(crate) machine: Machine,
    /// Quotients of medians.
    pub(crate) ratios: BTreeMap<String, f64>,
    /// Events a second through all stages at once.
    pub(crate) tape_events_per_s: Option<f64>,
    /// Milliseconds at percentiles.
    pub(crate) latency_ms: BTreeMap<String, f64>,
    /// Peaks of memory.
    pub(crate) rss_mib: BTreeMap<String, f64>,
    /// Messages a second and core.
    pub(crate) decode_per_s: BTreeMap<String, f64>,
    /// Every measured figure by its full name, with its rounds.
    pub(crate) series: BTreeMap<String, Series>,
    /// Distributions of latency.
    pub(crate) curves: BTreeMap<String, Curve>,
    /// What a reader of the figures has to know.
    pub(crate) notes: Vec<String>,
}

impl Results {
    /// Keeps a figure's rounds; its median.
    pub(crate) fn keep(&mut self, name: &str, unit: &str, rounds: Vec<f64>) -> f64 {
        let series = Series::new(unit, rounds);
        let median = series.median;
        self.series.insert(name.to_owned(), series);
        median
    }

    /// Adds a round to a figure.
    pub(crate) fn add(&mut self, name: &str, unit: &str, value: f64) {
        let mut rounds = self.series.remove(name).map(|series| series.rounds).unwrap_or_default();
        rounds.push(value);
        self.keep(name, unit, rounds);
    }

    /// The median of a figure that was measured.
    pub(crate) fn median(&self, name: &str) -> Option<f64> {
        self.series.get(name).map(|series| series.median)
    }

    /// Fills in what follows from the figures.
    pub(crate) fn conclude(&mut self) {
        let ratios = [
            ("store_to_limit", "store", "limit"),
            ("store_to_kafka_connect", "store", "kafka_connect"),
            ("store_to_kafka_connect_unnest", "store", "kafka_connect_unnest"),
            ("duplicates_to_store", "store_duplicates", "store"),
            ("scale_1_to_2", "scale_2", "scale_1"),
            ("scale_2_to_4", "scale_4", "scale_2"),
        ];
        for (name, above, below) in ratios {
            if let (Some(above), Some(below)) = (self.median(above), self.median(below)) {
                self.ratios.insert(name.to_owned(), above / below);
            }
        }
        self.tape_events_per_s = self.median("tape");
        let groups = [
            ("latency.", &mut self.latency_ms),
            ("rss.", &mut self.rss_mib),
            ("decode.", &mut self.decode_per_s),
        ];
        for (prefix, group) in groups {
            for (name, series) in &self.series {
                if let Some(name) = name.strip_prefix(prefix) {
                    group.insert(name.to_owned(), series.median);
                }
            }
        }
    }

    /// Reads what a run wrote.
    pub(crate) fn read(path: &Path) -> Result<Results> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{}: run `make bench` first", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{}", path.display()))
    }

    /// Writes it beside and moves it into place.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let beside = path.with_extension("json.tmp");
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        std::fs::write(&beside, text).with_context(|| format!("{}", beside.display()))?;
        std::fs::rename(&beside, path).with_context(|| format!("{}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_median_of_its_rounds_with_their_spread() {
        let series = Series::new("rows/s", vec![90.0, 110.0, 100.0]);
        assert_eq!((series.median, series.spread), (100.0, 0.2));
        assert_eq!(Series::new("ms", vec![1.0, 3.0]).median, 2.0);
    }

    #[test]
    fn ratios_are_of_medians_and_only_of_what_was_measured() {
        let mut results = Results::default();
        results.keep("store", "rows/s", vec![300.0, 330.0, 270.0]);
        results.keep("limit", "rows/s", vec![200.0]);
        results.keep("rss.store", "MiB", vec![50.0]);
        results.conclude();
        assert_eq!(results.ratios.get("store_to_limit"), Some(&1.5));
        assert_eq!(results.ratios.len(), 1);
        assert_eq!(results.rss_mib.get("store"), Some(&50.0));
        assert_eq!(results.tape_events_per_s, None);
    }
}
