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

use anyhow::{Result, bail};

/// Makes a backup in each repository, whatever becomes of the others; fails where one could not be made.
pub async fn create(place: &Place, kind: Kind) -> Result<()> {
    let kind = format!("--type={}", kind.name());
    let mut failed = Vec::new();
    for repository in place.repositories() {
        let making = async {
            place.check_folder(repository)?;
            tool::run(place, Some(repository), "backup", &[kind.as_str()]).await
        };
        let made = making.await;
        // Also where it failed: the age of what is there is what the alert goes by.
        let there = listed(place, repository).await;
        if let Err(error) = made.and(there) {
            failed.push(format!("{error:#}"));
        }
    }
    end(&failed)
}

/// The backups of every repository, oldest first. A repository that cannot be read is an error.
pub async fn list(place: &Place) -> Result<Vec<Backup>> {
    let (mut backups, mut failed) = (Vec::new(), Vec::new());
    for repository in place.repositories() {
        match listed(place, repository).await {
            Ok(found) => backups.extend(found),
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    end(&failed)?;
    backups.sort_by_key(|backup| (backup.stop, backup.repository));
    Ok(backups)
}

/// The backups of a repository, oldest first, whatever the other one is like.
async fn listed(place: &Place, repository: u32) -> Result<Vec<Backup>> {
    place.check_folder(repository)?;
    let backups = tool::info(place, repository).await?;
    record(&backups);
    Ok(backups)
}

/// An error where anything failed, with all of it.
fn end(failed: &[String]) -> Result<()> {
    match failed {
        [] => Ok(()),
        failed => bail!("{}", failed.join("; ")),
    }
}

/// Reads back every file of each of `repositories`, of all where none is named; the reports of those that are not
/// whole, or that cannot be read.
pub async fn verify(place: &Place, repositories: &[u32]) -> Vec<String> {
    let mut faults = Vec::new();
    for repository in place.wanted(repositories) {
        match fault(place, repository).await {
            Ok(fault) => faults.extend(fault),
            Err(error) => faults.push(format!("{error:#}")),
        }
    }
    faults
}

async fn fault(place: &Place, repository: u32) -> Result<Option<String>> {
    if listed(place, repository).await?.is_empty() {
        return Ok(Some(format!("repository {repository} has no backup")));
    }
    let arguments = ["--output=text", "--verbose"];
    let said = tool::run(place, Some(repository), "verify", &arguments).await?;
    // It exits with 0 whatever it finds.
    let whole = said.lines().any(|line| line.trim() == "status: ok");
    Ok((!whole).then(|| format!("repository {repository}: {}", said.trim())))
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
