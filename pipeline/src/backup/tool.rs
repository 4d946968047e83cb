//! pgBackRest: running it, and what it says.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::place::Place;

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Everything.
    Full,
    /// What changed since the last full one.
    Differential,
    /// What changed since the last of any kind; everything, where there is none.
    Incremental,
}

impl Kind {
    /// pgBackRest's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Kind::Full => "full",
            Kind::Differential => "diff",
            Kind::Incremental => "incr",
        }
    }
}

/// A backup in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Backup {
    /// Number of the repository: 1, or 2 for the second one.
    pub repository: u32,
    /// pgBackRest's name of it.
    pub label: String,
    /// `full`, `diff` or `incr`.
    pub kind: String,
    /// When it began, seconds since the epoch.
    pub start: i64,
    /// When it ended; the database can be restored to any time from then on.
    pub stop: i64,
    /// Bytes of the database.
    pub database_bytes: u64,
    /// Bytes that it added to the repository.
    pub repository_bytes: u64,
    /// Whether pgBackRest found damaged pages in it.
    pub error: bool,
}

/// Runs a command of pgBackRest; what it printed. Its configuration holds the secrets.
pub(super) async fn run(
    place: &Place,
    repository: Option<u32>,
    command: &str,
    arguments: &[&str],
) -> Result<String> {
    let mut pgbackrest = Command::new("pgbackrest");
    pgbackrest
        .arg(format!("--config={}", place.configuration().display()))
        .arg(format!("--stanza={}", place.config.stanza))
        .args(repository.map(|number| format!("--repo={number}")))
        .arg(command)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    // What the environment says would come over the configuration.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PGBACKREST_") {
            pgbackrest.env_remove(name);
        }
    }
    let ended =
        pgbackrest.output().await.context("pgbackrest cannot be run: is its package installed?")?;
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    if !ended.status.success() {
        let all = said + &String::from_utf8_lossy(&ended.stderr);
        let at = repository.map(|number| format!(" in repository {number}")).unwrap_or_default();
        bail!("pgbackrest {command}{at}: {}", reason(&all));
    }
    Ok(said)
}

/// The reason among pgBackRest's lines. It quotes what it cannot read, which is rubbish where the passphrase is
/// another one.
pub(super) fn reason(said: &str) -> String {
    if said.contains("FormatError") || said.contains("CryptoError") {
        return "the repository cannot be read: was another passphrase set when it was made?"
            .to_owned();
    }
    let start = said.find("ERROR: [").unwrap_or(0);
    let lines =
        said[start..].lines().map(str::trim).filter(|line| !line.starts_with("HINT: has a"));
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[derive(Deserialize)]
struct Stanza {
    #[serde(default)]
    backup: Vec<Listed>,
    #[serde(default)]
    repo: Vec<Repository>,
}

#[derive(Deserialize)]
struct Repository {
    key: u32,
    status: Status,
}

#[derive(Deserialize)]
struct Status {
    code: u32,
    message: String,
}

#[derive(Deserialize)]
struct Listed {
    label: String,
    #[serde(rename = "type")]
    kind: String,
    error: Option<bool>,
    database: Origin,
    timestamp: Times,
    info: Sizes,
}

#[derive(Deserialize)]
struct Origin {
    #[serde(rename = "repo-key")]
    repository: u32,
}

#[derive(Deserialize)]
struct Times {
    start: i64,
    stop: i64,
}

#[derive(Deserialize)]
struct Sizes {
    size: u64,
    repository: Delta,
}

#[derive(Deserialize)]
struct Delta {
    delta: u64,
}

/// Codes of a repository's status that are no fault: all is well, or no backup has been made.
const GOOD: [u32; 2] = [0, 2];

/// Every backup of a repository, oldest first. The other one is not looked at.
pub(super) async fn info(place: &Place, repository: u32) -> Result<Vec<Backup>> {
    let said = run(place, Some(repository), "info", &["--output=json"]).await?;
    // It quotes what it cannot decrypt, line ends and all, which JSON does not allow.
    let said = said.replace(char::is_control, " ");
    let stanzas: Vec<Stanza> = serde_json::from_str(&said).context("pgbackrest info")?;
    let mut backups = Vec::new();
    for stanza in stanzas {
        let bad = |repo: &&Repository| repo.key == repository && !GOOD.contains(&repo.status.code);
        if let Some(bad) = stanza.repo.iter().find(bad) {
            bail!("repository {repository}: {}", reason(&bad.status.message));
        }
        let wanted = stanza.backup.into_iter();
        let wanted = wanted.filter(|listed| listed.database.repository == repository);
        backups.extend(wanted.map(|listed| Backup {
            repository: listed.database.repository,
            label: listed.label,
            kind: listed.kind,
            start: listed.timestamp.start,
            stop: listed.timestamp.stop,
            database_bytes: listed.info.size,
            repository_bytes: listed.info.repository.delta,
            error: listed.error.unwrap_or_default(),
        }));
    }
    backups.sort_by_key(|backup| backup.stop);
    Ok(backups)
}
