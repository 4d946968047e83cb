//! Work at set times, for as long as the process lives: backups, restore tests, the lifecycle.
//!
//! What runs when is a matter of the wall clock; what it does is not (invariant 11 is about stages).

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, Utc};
use cron::Schedule;
use tokio_util::sync::CancellationToken;

use crate::telemetry::{self, Readiness};

type Doing<'w> = Pin<Box<dyn Future<Output = Result<()>> + 'w>>;
type Work<'w> = Box<dyn FnMut() -> Doing<'w> + 'w>;

/// Something to do again and again.
pub struct Job<'w> {
    name: &'static str,
    when: Schedule,
    work: Work<'w>,
}

/// Reads a time of cron (minute, hour, day of month, month, day of week; UTC), or one with seconds before it. Days of
/// the week go by their names: their numbers differ from cron to cron.
pub fn parse(when: &str) -> Result<Schedule, String> {
    let fields: Vec<&str> = when.split_whitespace().collect();
    let numbered = |field: &&str| field.contains(|c: char| c.is_ascii_digit());
    let seconds = match fields.len() {
        5 => "0 ",
        6 => "",
        count => return Err(format!("{count} fields, expected 5")),
    };
    if fields.last().is_some_and(numbered) {
        return Err("days of the week go by their names".to_owned());
    }
    format!("{seconds}{when}").parse().map_err(|error: cron::error::Error| error.to_string())
}

impl<'w> Job<'w> {
    /// A job by its name in metrics and logs.
    pub fn new<F: Future<Output = Result<()>> + 'w>(
        name: &'static str,
        when: &str,
        mut work: impl FnMut() -> F + 'w,
    ) -> Result<Job<'w>> {
        let when = parse(when).map_err(anyhow::Error::msg).context(name)?;
        Ok(Job { name, when, work: Box::new(move || -> Doing<'w> { Box::pin(work()) }) })
    }

    fn next(&self, after: DateTime<Utc>) -> Result<DateTime<Utc>> {
        let next = self.when.after(&after).next();
        next.with_context(|| format!("{} is never due", self.name))
    }

    /// Does it now, and says how it went.
    async fn run(&mut self) {
        let began = Utc::now();
        let done = (self.work)().await;
        let seconds = (Utc::now() - began).as_seconds_f64();
        let labels = [("work", self.name)];
        metrics::gauge!("tapeline_scheduled_duration_seconds", &labels).set(seconds);
        match done {
            Ok(()) => {
                metrics::counter!("tapeline_scheduled_runs_total", &labels).increment(1);
                let now = Utc::now().timestamp() as f64;
                metrics::gauge!("tapeline_scheduled_success_time_seconds", &labels).set(now);
                tracing::info!(job = self.name, seconds, "done");
            }
            Err(error) => {
                metrics::counter!("tapeline_scheduled_failures_total", &labels).increment(1);
                tracing::error!(
                    job = self.name,
                    error = format!("{error:#}"),
                    "failed, it is tried again at its next time"
                );
            }
        }
    }
}

/// Does each job at its times, one after the other, until `stop`; what is under way then is finished.
/// Times that pass meanwhile are made up for once. Metrics and health are served on `listen`.
pub async fn run(
    mut jobs: Vec<Job<'_>>,
    listen: Option<&str>,
    stop: CancellationToken,
) -> Result<()> {
    ensure!(!jobs.is_empty(), "nothing is scheduled");
    let readiness = Readiness::new();
    if let Some(listen) = listen {
        telemetry::serve(listen, readiness.clone(), stop.clone()).await?;
    }
    let now = Utc::now();
    let mut due = jobs.iter().map(|job| job.next(now)).collect::<Result<Vec<_>>>()?;
    for (job, due) in jobs.iter().zip(&due) {
        metrics::counter!("tapeline_scheduled_failures_total", "work" => job.name).absolute(0);
        tracing::info!(job = job.name, next = %due.format("%FT%TZ"), "scheduled");
    }
    readiness.component("schedule").ready();
    while let Some((index, at)) = due.iter().copied().enumerate().min_by_key(|(_, at)| *at) {
        let wait = (at - Utc::now()).to_std().unwrap_or(Duration::ZERO);
        tokio::select! {
            () = tokio::time::sleep(wait.min(LOOK)) => {}
            () = stop.cancelled() => break,
        }
        if Utc::now() >= at {
            jobs[index].run().await;
            due[index] = jobs[index].next(Utc::now())?;
        }
    }
    Ok(())
}

/// How often the clock is looked at: one that is set must not keep a job waiting.
const LOOK: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_cron_in_utc() {
        let job = Job::new("night", "30 1 * * *", || std::future::ready(Ok(()))).expect("a time");
        let at = |text: &str| text.parse::<DateTime<Utc>>().expect("a time");
        let next = job.next(at("2026-11-27T01:30:00Z")).expect("due");
        assert_eq!(next, at("2026-11-28T01:30:00Z"));
        for wrong in ["", "61 * * * *", "every day", "* * *", "0 2 * * 0"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_job_that_fails_is_tried_again_at_its_next_time() {
        let (stop, mut runs) = (CancellationToken::new(), 0);
        let stopping = stop.clone();
        let job = Job::new("second", "* * * * * *", || {
            runs += 1;
            if runs == 2 {
                stopping.cancel();
            }
            std::future::ready(Err(anyhow::anyhow!("not yet")))
        });
        run(vec![job.expect("a time")], None, stop).await.expect("ends");
        assert_eq!(runs, 2);
    }
}
