//! What was measured, beside what it has to be.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::load::Shape;
use crate::bench::{Machine, describe};

/// What a figure has to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Target {
    AtLeast(f64),
    Below(f64),
}

#[derive(Debug, Serialize)]
struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
    target: Option<Target>,
    /// Whether it is reached; none without a target.
    reached: Option<bool>,
}

/// Everything of a run.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    date: String,
    commit: String,
    quick: bool,
    machine: Machine,
    rows: u64,
    days: u64,
    figures: Vec<Figure>,
}

impl Figures {
    pub(super) async fn new(quick: bool, shape: &Shape) -> Result<Figures> {
        let (date, commit, machine) = describe().await?;
        let (rows, days) = (shape.rows, shape.days);
        Ok(Figures { date, commit, quick, machine, rows, days, figures: Vec::new() })
    }

    pub(super) fn add(
        &mut self,
        name: &'static str,
        value: f64,
        unit: &'static str,
        target: Option<Target>,
    ) {
        let reached = target.map(|target| match target {
            Target::AtLeast(least) => value >= least,
            Target::Below(limit) => value < limit,
        });
        let figure = Figure { name, value, unit, target, reached };
        super::say(&figure.line());
        self.figures.push(figure);
    }

    /// Names of the figures that are not what they have to be.
    pub(super) fn missed(&self) -> Vec<&'static str> {
        let missed = self.figures.iter().filter(|figure| figure.reached == Some(false));
        missed.map(|figure| figure.name).collect()
    }

    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// One table, as Markdown.
    pub(super) fn table(&self) -> String {
        let machine = &self.machine;
        let mut text = format!(
            "{} trades of {} days; {}, commit {}; {} cores, {:.0} GiB, PostgreSQL {}, TimescaleDB {}, load before {:.1}\n\n\
             | what | measured | has to be | |\n|---|--:|--:|---|\n",
            self.rows,
            self.days,
            self.date,
            self.commit,
            machine.cores,
            machine.memory_gib,
            machine.postgres,
            machine.timescaledb,
            machine.load_before
        );
        for figure in &self.figures {
            text.push_str(&figure.line());
            text.push('\n');
        }
        text
    }
}

impl Figure {
    fn line(&self) -> String {
        let target = match self.target {
            Some(Target::AtLeast(least)) => format!("≥ {}", shown(least)),
            Some(Target::Below(limit)) => format!("< {}", shown(limit)),
            None => String::new(),
        };
        let reached = match self.reached {
            Some(true) => "reached",
            Some(false) => "**missed**",
            None => "",
        };
        format!("| {} | {} {} | {target} | {reached} |", self.name, shown(self.value), self.unit)
    }
}

/// Whole thousands with commas, small numbers with two decimals.
fn shown(value: f64) -> String {
    if value < 100.0 {
        let text = format!("{value:.2}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shown_for_people() {
        assert_eq!(shown(1_234_567.4), "1,234,567");
        assert_eq!(shown(500.0), "500");
        assert_eq!(shown(4.0), "4");
        assert_eq!(shown(0.256), "0.26");
    }
}
