//! What the audit found, for people and as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

/// One check.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// Whether nothing is wrong.
    pub ok: bool,
    /// How many things were looked at: offsets, rows, candles, keys.
    pub examined: i64,
    /// How many are wrong; a check that cannot go on after the first stops there.
    pub offences: i64,
    /// The first one.
    pub first_offence: Option<String>,
    /// Further figures by name.
    pub figures: BTreeMap<&'static str, i64>,
}

impl Check {
    pub(super) fn new(name: &'static str) -> Check {
        let figures = BTreeMap::new();
        Check { name, ok: true, examined: 0, offences: 0, first_offence: None, figures }
    }

    pub(super) fn wrong(&mut self, offence: impl FnOnce() -> String) {
        self.ok = false;
        self.offences += 1;
        self.first_offence.get_or_insert_with(offence);
    }

    pub(super) fn count(&mut self, figure: &'static str, number: i64) {
        *self.figures.entry(figure).or_default() += number;
    }
}

/// What was judged: everything below the fences of one snapshot.
#[derive(Debug, Clone, Serialize)]
pub struct CutReport {
    /// Time of the snapshot, by the database's clock.
    pub taken_at: String,
    /// Name of the pipeline.
    pub pipeline: String,
    /// First UTC day of rows and candles, where the scope is limited.
    pub from: Option<String>,
    /// Day after the last one, where the scope is limited.
    pub to: Option<String>,
}

/// One partition that the store reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PartitionReport {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// The cut: next offset that the store will read.
    pub next_offset: i64,
    /// The cut in raw offsets: the last one taken, -1 before the first.
    pub held_origin: i64,
    /// Origins that the ledger accounts for, without hole or overlap.
    pub accounted: i64,
    /// Origins that retention took before the pipeline began, or from the checked topic since.
    pub retained_away: i64,
    /// Origins of an accepted loss.
    pub lost: i64,
    /// Checked records that stand for an origin a second time.
    pub repeated: i64,
    /// Raw records (those of the topic itself, where there is no raw one) above the cut.
    pub behind: i64,
}

impl PartitionReport {
    pub(super) fn take(&mut self, walked: &BTreeMap<(String, i32), super::log::PartitionWalk>) {
        if let Some(walk) = walked.get(&(self.topic.clone(), self.partition)) {
            self.retained_away = walk.retained_away;
            self.repeated = walk.repeated;
        }
    }
}

/// The whole audit.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether nothing is wrong. An accepted loss is none of that; it is shown.
    pub ok: bool,
    /// What was judged.
    pub cut: CutReport,
    /// The checks in their order.
    pub checks: Vec<Check>,
    /// The partitions.
    pub partitions: Vec<PartitionReport>,
}

impl Report {
    pub(super) fn new(
        cut: CutReport,
        checks: Vec<Check>,
        partitions: Vec<PartitionReport>,
    ) -> Report {
        Report { ok: checks.iter().all(|check| check.ok), cut, checks, partitions }
    }

    /// Whether nothing is above the cut either: everything that entered is in the database.
    pub fn is_complete(&self) -> bool {
        self.ok && self.partitions.iter().all(|partition| partition.behind == 0)
    }

    /// Prints it for people, a line a check.
    pub fn print(&self) {
        println!("audit of {} as of {}", self.cut.pipeline, self.cut.taken_at);
        for check in &self.checks {
            let verdict = if check.ok { "good" } else { "WRONG" };
            let figures: Vec<_> = check
                .figures
                .iter()
                .filter(|(_, number)| **number != 0)
                .map(|(name, number)| format!(", {} {number}", name.replace('_', " ")))
                .collect();
            println!(
                "{:<18} {verdict:<6} {} examined{}",
                check.name,
                check.examined,
                figures.concat()
            );
            if let Some(offence) = &check.first_offence {
                println!("{:<18} {} wrong, first: {offence}", "", check.offences);
            }
        }
        let sum = |of: fn(&PartitionReport) -> i64| self.partitions.iter().map(of).sum::<i64>();
        println!(
            "{} partitions: {} offsets accounted for, {} still on their way, {} accepted as lost",
            self.partitions.len(),
            sum(|partition| partition.accounted),
            sum(|partition| partition.behind),
            sum(|partition| partition.lost),
        );
    }
}
