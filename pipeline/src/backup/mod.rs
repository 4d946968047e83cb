//! Backups of the database's cluster with pgBackRest, and the proof that they can be restored (S4).
//!
//! Everything runs beside the server as the owner of its data directory: pgBackRest reads that directory, and the
//! server hands its write-ahead log to pgBackRest. Secrets are in one file that only that owner can read, never in an
//! argument.

mod instance;
mod place;
mod restore;
mod setup;
mod snapshot;
mod tool;
mod trial;

pub use place::Place;
pub use restore::{Target, restore};
pub use setup::setup;
pub use tool::{Backup, Kind};
pub use trial::{Trial, trial};

use anyhow::Result;

/// Makes a backup in each repository.
pub async fn create(place: &Place, kind: Kind) -> Result<()> {
    for repository in place.repositories() {
        let kind = format!("--type={}", kind.name());
        tool::run(place, Some(repository), "backup", &[kind.as_str()]).await?;
    }
    record(&list(place).await?);
    Ok(())
}

/// The backups of every repository, oldest first. A repository that cannot be read is an error.
pub async fn list(place: &Place) -> Result<Vec<Backup>> {
    let listed = tool::info(place).await?;
    record(&listed);
    Ok(listed)
}

/// Reads back every file of each repository; the reports of those that are not whole.
pub async fn verify(place: &Place) -> Result<Vec<String>> {
    let listed = list(place).await?;
    let mut faults = Vec::new();
    for repository in place.repositories() {
        if !listed.iter().any(|backup| backup.repository == repository) {
            faults.push(format!("repository {repository} has no backup"));
            continue;
        }
        let arguments = ["--output=text", "--verbose"];
        let said = tool::run(place, Some(repository), "verify", &arguments).await?;
        // It exits with 0 whatever it finds.
        if !said.lines().any(|line| line.trim() == "status: ok") {
            faults.push(format!("repository {repository}: {}", said.trim()));
        }
    }
    Ok(faults)
}

/// Time of the newest backup of each repository, as a metric.
fn record(backups: &[Backup]) {
    for backup in backups {
        // In order of time: the newest is the last to be set.
        let labels = [("repository", backup.repository.to_string())];
        metrics::gauge!("tapeline_backup_newest_time_seconds", &labels).set(backup.stop as f64);
        metrics::gauge!("tapeline_backup_newest_duration_seconds", &labels)
            .set((backup.stop - backup.start) as f64);
    }
}
