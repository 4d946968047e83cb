//! The restore test: a repository is restored into a scratch instance and compared with the database, table by table.

use std::time::Instant;

use anyhow::{Context as _, Result};
use chrono::Utc;
use serde::Serialize;

use super::instance::{Instance, settings};
use super::place::Place;
use super::restore::{Target, files, scratch_directory};
use super::snapshot::{Moment, Sums, differences, hand_over, sums};
use super::{Backup, end, listed};

/// What a restore test found.
#[derive(Debug, Clone, Serialize)]
pub struct Trial {
    /// Number of the repository.
    pub repository: u32,
    /// The newest backup in it, which was restored.
    pub label: String,
    /// Seconds since that backup ended.
    pub age_seconds: i64,
    /// Seconds that restoring and recovering took.
    pub restore_seconds: f64,
    /// Tables that were compared.
    pub tables: usize,
    /// Their rows.
    pub rows: i64,
    /// Tables that differ; none where all is well.
    pub differences: Vec<String>,
}

/// Tests each of `repositories`, all of them where none is named, whatever becomes of the others: what was found, and
/// an error where one could not be tested. A repository that was not shown to restore counts as one that does not.
pub async fn trial(place: &Place, repositories: &[u32]) -> (Vec<Trial>, Result<()>) {
    let wanted = place.wanted(repositories);
    let (mut newest, mut trials, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for repository in &wanted {
        match newest_of(place, *repository).await {
            Ok(backup) => newest.push(backup),
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    match moment(place, &newest).await {
        Ok((name, live)) => {
            for backup in &newest {
                match one(place, backup, &name, &live).await {
                    Ok(trial) => trials.push(trial),
                    Err(error) => {
                        failed.push(format!("repository {}: {error:#}", backup.repository));
                    }
                }
            }
        }
        Err(error) => failed.push(format!("{error:#}")),
    }
    trials.iter().for_each(record);
    let tested = |repository: u32| trials.iter().any(|trial| trial.repository == repository);
    for repository in wanted.into_iter().filter(|repository| !tested(*repository)) {
        record_outcome(repository, false);
    }
    let ended = end(&failed);
    (trials, ended)
}

async fn newest_of(place: &Place, repository: u32) -> Result<Backup> {
    let newest = listed(place, repository).await?.pop();
    newest.with_context(|| format!("repository {repository} has no backup"))
}

/// The moment that `backups` are restored to, and what the database held then; nothing where there are none.
async fn moment(place: &Place, backups: &[Backup]) -> Result<(String, Sums)> {
    if backups.is_empty() {
        return Ok((String::new(), Sums::new()));
    }
    let name = format!("tapeline-test-{}-{}", Utc::now().timestamp(), std::process::id());
    let found = Moment::mark(place, name).await?.sums().await?;
    hand_over(place).await?;
    Ok(found)
}

async fn one(place: &Place, backup: &Backup, moment: &str, live: &Sums) -> Result<Trial> {
    let settings = settings(place).await?;
    let scratch = scratch_directory(place)?;
    let data = scratch.join("data");
    let began = Instant::now();
    let compared = async {
        files(place, backup.repository, &Target::Name(moment.to_owned()), &data).await?;
        let mut instance = Instance::start(place, &data, &scratch, &settings)?;
        instance.recovered(place).await?;
        let restore_seconds = began.elapsed().as_secs_f64();
        let mut restored = instance.connect(place, &place.database).await?;
        let differences = differences(live, &sums(&mut restored).await?);
        drop(restored);
        instance.stop().await?;
        anyhow::Ok((restore_seconds, differences))
    };
    let compared = compared.await;
    std::fs::remove_dir_all(&scratch)?;
    let (restore_seconds, differences) = compared?;
    Ok(Trial {
        repository: backup.repository,
        label: backup.label.clone(),
        age_seconds: Utc::now().timestamp() - backup.stop,
        restore_seconds,
        tables: live.len(),
        rows: live.values().map(|sum| sum.rows).sum(),
        differences,
    })
}

fn record(trial: &Trial) {
    record_outcome(trial.repository, trial.differences.is_empty());
    let labels = [("repository", trial.repository.to_string())];
    metrics::gauge!("tapeline_backup_restore_test_duration_seconds", &labels)
        .set(trial.restore_seconds);
    metrics::gauge!("tapeline_backup_restore_test_rows", &labels).set(trial.rows as f64);
    metrics::gauge!("tapeline_backup_restore_test_time_seconds", &labels)
        .set(Utc::now().timestamp() as f64);
    metrics::gauge!("tapeline_backup_age_seconds", &labels).set(trial.age_seconds as f64);
}

fn record_outcome(repository: u32, good: bool) {
    let labels = [("repository", repository.to_string())];
    let good = if good { 1.0 } else { 0.0 };
    metrics::gauge!("tapeline_backup_restore_test_good", &labels).set(good);
}
