//! What was found.

use serde::Serialize;

/// How bad a finding is, and the exit code of a run that found nothing worse.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    #[default]
    Ok,
    /// Could be better.
    Advice,
    /// Will be a problem.
    Warning,
    /// Is one.
    Critical,
}

/// Where a line of advice belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// A statement for PostgreSQL.
    Postgresql,
    /// A line of `redis.conf`.
    Redis,
    /// A command for a person.
    Command,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// Where the line belongs.
    pub target: Target,
    /// The line.
    pub line: String,
    /// Whether it takes effect at once, can be taken back and puts no data at risk: `--apply` does it.
    pub safe: bool,
    /// What became of it under `--apply`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied: Option<String>,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// What was examined: `chunks`, `shared_buffers`, `gaps`, …
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it is, for people, with its figures.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub advice: Vec<Advice>,
    /// The figures, for programs.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub figures: serde_json::Value,
}

/// Something that could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unseen {
    /// What.
    pub what: String,
    /// Why not.
    pub why: String,
}

/// Everything that was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// The worst of the findings.
    pub severity: Severity,
    /// All of them.
    pub findings: Vec<Finding>,
    /// What could not be looked at.
    pub unseen: Vec<Unseen>,
}

impl Report {
    /// Adds a finding; returns it, for advice.
    pub(super) fn find(
        &mut self,
        name: &'static str,
        severity: Severity,
        message: String,
    ) -> &mut Finding {
        self.severity = self.severity.max(severity);
        let figures = serde_json::Value::Null;
        self.findings.push(Finding { name, severity, message, advice: Vec::new(), figures });
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }

    /// Says what could not be looked at, for lack of rights or because it is not there. What failed is a finding.
    pub(super) fn unseen(&mut self, what: &str, why: &str) {
        self.unseen.push(Unseen { what: what.to_owned(), why: why.to_owned() });
    }

    /// 0 where nothing has to be done, 1 with warnings, 2 where something is critical.
    pub fn exit_code(&self) -> u8 {
        match self.severity {
            Severity::Ok | Severity::Advice => 0,
            Severity::Warning => 1,
            Severity::Critical => 2,
        }
    }

    /// The worst first, for people.
    pub fn print(&self) {
        let mut sorted: Vec<&Finding> = self.findings.iter().collect();
        sorted.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        for finding in sorted {
            let severity = format!("{:?}", finding.severity).to_lowercase();
            println!("{severity:<9} {:<22} {}", finding.name, finding.message);
            for advice in &finding.advice {
                let place = match advice.target {
                    Target::Redis => "redis.conf: ",
                    Target::Postgresql | Target::Command => "",
                };
                let applied = advice.applied.as_ref().map(|how| format!("  -- {how}"));
                println!("{:34}{place}{}{}", "", advice.line, applied.unwrap_or_default());
            }
        }
        for unseen in &self.unseen {
            println!("{:<9} {:<22} {}", "not seen", unseen.what, unseen.why);
        }
    }
}

impl Finding {
    pub(super) fn advise(&mut self, target: Target, line: impl Into<String>, safe: bool) {
        self.advice.push(Advice { target, line: line.into(), safe, applied: None });
    }

    pub(super) fn with_figures(&mut self, figures: serde_json::Value) -> &mut Finding {
        self.figures = figures;
        self
    }
}

/// Bytes for people.
pub(super) fn size(bytes: i64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1_024.0 { format!("{mib:.0} MiB") } else { format!("{:.1} GiB", mib / 1_024.0) }
}

/// A share for people.
pub(super) fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}
