//! Telling how far a replay is.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Time between two lines where nobody watches.
const LINES_EVERY: Duration = Duration::from_secs(5);
/// Width of the bar.
const BAR: usize = 30;

/// How far a step is.
#[derive(Debug, Clone, Copy)]
pub struct Report<'r> {
    /// What is being done.
    pub what: &'r str,
    /// Offsets that are durable.
    pub done: i64,
    /// Offsets of the step.
    pub total: i64,
}

/// Who is told.
pub trait Reporter: Send {
    /// About once a second, and when a step ends.
    fn report(&mut self, report: Report<'_>, ended: bool);
}

/// Nobody.
impl Reporter for () {
    fn report(&mut self, _: Report<'_>, _: bool) {}
}

/// Standard error: a bar on a terminal, a line every few seconds otherwise.
#[derive(Debug)]
pub struct Terminal {
    is_terminal: bool,
    step: Option<(String, Instant, i64)>,
    last_line: Option<Instant>,
}

impl Default for Terminal {
    fn default() -> Terminal {
        Terminal { is_terminal: std::io::stderr().is_terminal(), step: None, last_line: None }
    }
}

impl Reporter for Terminal {
    fn report(&mut self, report: Report<'_>, ended: bool) {
        if self.step.as_ref().is_none_or(|(what, ..)| what != report.what) {
            self.step = Some((report.what.to_owned(), Instant::now(), report.done));
        }
        let Some((_, began, from)) = &self.step else { return };
        let seconds = began.elapsed().as_secs_f64();
        let line = line(report, (report.done - from) as f64 / seconds.max(0.001));
        // A terminal that went away is no reason to stop.
        let mut out = std::io::stderr();
        if self.is_terminal {
            let _ = write!(out, "\r\x1b[K{line}{}", if ended { "\n" } else { "" });
            let _ = out.flush();
        } else if ended || self.last_line.is_none_or(|last| last.elapsed() >= LINES_EVERY) {
            let _ = writeln!(out, "{line}");
            self.last_line = Some(Instant::now());
        }
        if ended {
            (self.step, self.last_line) = (None, None);
        }
    }
}

fn line(report: Report<'_>, rate: f64) -> String {
    let Report { what, done, total } = report;
    let share = if total > 0 { done as f64 / total as f64 } else { 1.0 };
    let filled = ((share * BAR as f64) as usize).min(BAR);
    let left = match (total - done, rate) {
        (0, _) => "done".to_owned(),
        (_, rate) if rate <= 0.0 => "no estimate yet".to_owned(),
        (left, rate) => format!("{} left", clock(left as f64 / rate)),
    };
    let bar = format!("{}{}", "#".repeat(filled), "-".repeat(BAR - filled));
    format!("{what} [{bar}] {done}/{total} {:.1}% {rate:.0}/s {left}", share * 100.0)
}

fn clock(seconds: f64) -> String {
    let seconds = seconds.ceil() as u64;
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}", seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_share_rate_and_time_left() {
        let report = Report { what: "store", done: 500, total: 2_000 };
        let text = line(report, 100.0);
        assert_eq!(
            text,
            format!(
                "store [{}{}] 500/2000 25.0% 100/s 00:00:15 left",
                "#".repeat(7),
                "-".repeat(23)
            )
        );
        let text = line(Report { what: "store", done: 0, total: 0 }, 0.0);
        assert!(text.ends_with("0/0 100.0% 0/s done"), "{text}");
        assert_eq!(clock(3_725.2), "01:02:06");
    }
}
