//! Restoring a cluster into a directory of its own, up to a second.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::instance::{Instance, settings};
use super::listed;
use super::place::Place;
use super::snapshot::hand_over;
use super::tool;

/// How far to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// As far as the log in the repository goes.
    Latest,
    /// All that was committed up to a time, as PostgreSQL reads it.
    Time(String),
    /// A restore point.
    Name(String),
}

/// Puts the files of a backup into `data`, which must be empty or not there, and the log's place beside them.
pub(super) async fn files(
    place: &Place,
    repository: u32,
    target: &Target,
    data: &Path,
) -> Result<()> {
    let mut arguments = vec![
        format!("--pg1-path={}", data.display()),
        // What is started from them must not write into the archive of the server they came from.
        "--archive-mode=off".to_owned(),
    ];
    match target {
        Target::Latest => arguments.push("--type=default".to_owned()),
        Target::Time(time) => {
            arguments.extend(["--type=time".to_owned(), format!("--target={time}")]);
        }
        Target::Name(name) => {
            arguments.extend(["--type=name".to_owned(), format!("--target={name}")]);
        }
    }
    if *target != Target::Latest {
        arguments.push("--target-action=promote".to_owned());
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    tool::run(place, Some(repository), "restore", &arguments).await?;
    Ok(())
}

/// Restores into `into`, which is empty or not there yet, and recovers up to the target. The directory is a cluster
/// that has been shut down in good order afterwards.
pub async fn restore(place: &Place, repository: u32, target: &Target, into: &Path) -> Result<()> {
    let empty = match std::fs::read_dir(into) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => {
            return Err(error).with_context(|| {
                format!("--into: {} cannot be looked at as {}", into.display(), place.owner)
            });
        }
    };
    ensure!(empty, "--into: {} is not empty", into.display());
    // The other repository may be gone.
    let backups = listed(place, repository).await?;
    ensure!(!backups.is_empty(), "repository {repository} has no backup");
    // A server that is gone has no settings to ask for; then those that were restored have to do.
    let settings = match settings(place).await {
        Ok(settings) => {
            if let Err(error) = hand_over(place).await {
                let error = format!("{error:#}");
                tracing::warn!(error, "the newest part of the log is not archived");
            }
            settings
        }
        Err(error) => {
            tracing::warn!(
                error = format!("{error:#}"),
                "the server does not answer; what it had not archived is not there"
            );
            Vec::new()
        }
    };
    files(place, repository, target, into).await?;
    let scratch = scratch_directory(place)?;
    let mut instance = Instance::start(place, into, &scratch, &settings)?;
    let recovered = instance.recovered(place).await;
    if recovered.is_ok() {
        instance.stop().await?;
    }
    std::fs::remove_dir_all(&scratch)?;
    recovered.with_context(|| format!("{} is not usable", into.display()))
}

/// A directory for one instance, closed to everybody else, with a short name: a socket's may have 107 bytes. What
/// processes left that were killed is removed.
pub(super) fn scratch_directory(place: &Place) -> Result<PathBuf> {
    let all = place.folder.join("scratch");
    for left in std::fs::read_dir(&all)?.flatten() {
        let name = left.file_name();
        let pid = name.to_string_lossy().trim_start_matches('r').to_owned();
        let is_mine = pid == std::process::id().to_string();
        if is_mine || !Path::new("/proc").join(pid).exists() {
            std::fs::remove_dir_all(left.path())?;
        }
    }
    let scratch = all.join(format!("r{}", std::process::id()));
    let made = DirBuilder::new().mode(0o700).create(&scratch);
    made.with_context(|| format!("{}", scratch.display()))?;
    Ok(scratch)
}
