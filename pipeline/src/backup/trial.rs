//! The restore test: a repository is restored into a scratch instance and compared with the database, table by table.

use std::time::Instant;

use anyhow::{Context as _, Result};
use chrono::Utc;
use serde::Serialize;

use super::instance::{Instance, settings};
use super::place::Place;
use super::restore::{Target, files, scratch_directory};
use super::snapshot::{Moment, Sums, differences, hand_over, sums};
use super::{Backup, list};

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

/// Tests each of `repositories`, all of them where none is named.
pub async fn trial(place: &Place, repositories: &[u32]) -> Result<Vec<Trial>> {
    let listed = list(place).await?;
    let all = place.repositories();
    let wanted = if repositories.is_empty() { &all[..] } else { repositories };
    let newest: Vec<&Backup> = wanted
        .iter()
        .map(|repository| {
            let found = listed.iter().rfind(|backup| backup.repository == *repository);
            found.with_context(|| format!("repository {repository} has no backup"))
        })
        .collect::<Result<_>>()?;
    let name = format!("tapeline-test-{}-{}", Utc::now().timestamp(), std::process::id());
    let mut moment = Moment::mark(place, name).await?;
    let live = moment.sums().await?;
    hand_over(place).await?;
    let mut trials = Vec::new();
    for backup in newest {
        let done = one(place, backup, &moment, &live).await;
        let trial = done.with_context(|| format!("repository {}", backup.repository))?;
        record(&trial);
        trials.push(trial);
    }
    Ok(trials)
}

async fn one(place: &Place, backup: &Backup, moment: &Moment, live: &Sums) -> Result<Trial> {
    let settings = settings(place).await?;
    let scratch = scratch_directory(place)?;
    let data = scratch.join("data");
    let began = Instant::now();
    let compared = async {
        files(place, backup.repository, &Target::Name(moment.name.clone()), &data).await?;
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
    let labels = [("repository", trial.repository.to_string())];
    let good = if trial.differences.is_empty() { 1.0 } else { 0.0 };
    metrics::gauge!("tapeline_backup_restore_test_good", &labels).set(good);
    metrics::gauge!("tapeline_backup_restore_test_duration_seconds", &labels)
        .set(trial.restore_seconds);
    metrics::gauge!("tapeline_backup_restore_test_rows", &labels).set(trial.rows as f64);
    metrics::gauge!("tapeline_backup_restore_test_time_seconds", &labels)
        .set(Utc::now().timestamp() as f64);
    metrics::gauge!("tapeline_backup_age_seconds", &labels).set(trial.age_seconds as f64);
}
