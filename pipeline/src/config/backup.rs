//! Settings of backups.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::text;

/// Backups of the database's cluster, with pgBackRest on the database's own machine.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackupConfig {
    /// Data directory of the cluster; its owner is who everything runs as. `tapeline backup` needs it.
    #[serde(deserialize_with = "text::optional")]
    pub data: Option<String>,
    /// Directory of the server's socket.
    pub socket: String,
    /// The server's port.
    pub port: u16,
    /// Superuser that the data directory's owner may connect as, over the socket.
    pub user: String,
    /// Directory of PostgreSQL's programs; that of Debian's packages where not set.
    #[serde(deserialize_with = "text::optional")]
    pub programs: Option<String>,
    /// Directory for pgBackRest's configuration and for restore tests, which need as much room as the database.
    pub folder: String,
    /// What pgBackRest calls the cluster.
    pub stanza: String,
    /// Processes that compress and send.
    pub processes: u32,
    /// Where backups and the write-ahead log go.
    pub repository: RepositoryConfig,
    /// Another place for the same, elsewhere.
    pub second_repository: RepositoryConfig,
    /// When `tapeline backup schedule` does what.
    pub schedule: BackupSchedule,
}

impl Default for BackupConfig {
    fn default() -> BackupConfig {
        BackupConfig {
            data: None,
            socket: "/var/run/postgresql".into(),
            port: 5432,
            user: "postgres".into(),
            programs: None,
            folder: "/var/lib/tapeline/backup".into(),
            stanza: "tapeline".into(),
            processes: 2,
            repository: RepositoryConfig::default(),
            second_repository: RepositoryConfig::default(),
            schedule: BackupSchedule::default(),
        }
    }
}

impl BackupConfig {
    /// The repositories that are set, by pgBackRest's number.
    pub fn repositories(&self) -> impl Iterator<Item = (u32, &RepositoryConfig)> {
        [(1, &self.repository), (2, &self.second_repository)]
            .into_iter()
            .filter(|(_, repository)| repository.url.is_some())
    }
}

/// A repository of pgBackRest.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RepositoryConfig {
    /// `file:///folder` or `s3://bucket/folder`.
    #[serde(deserialize_with = "text::optional")]
    pub url: Option<String>,
    /// Encrypts the repository (AES-256), where it is not empty. Without it the backups are lost: keep it elsewhere too.
    pub passphrase: String,
    /// Settings by pgBackRest's names without `repo1-`: `s3-endpoint`, `s3-region`, `s3-key`, `s3-key-secret`,
    /// `s3-uri-style`, `storage-ca-file`, … In the environment, `_` stands for `-`.
    #[serde(deserialize_with = "text::map")]
    pub properties: BTreeMap<String, String>,
    /// Full backups that are kept, with what builds on them and the log since the oldest.
    pub keep_full: u32,
}

impl Default for RepositoryConfig {
    fn default() -> RepositoryConfig {
        RepositoryConfig {
            url: None,
            passphrase: String::new(),
            properties: BTreeMap::new(),
            keep_full: 2,
        }
    }
}

/// Times as cron writes them (minute, hour, day of month, month, day of week by its name), in UTC; `none` for never.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackupSchedule {
    /// Full backups.
    #[serde(deserialize_with = "text::optional")]
    pub full: Option<String>,
    /// What changed since the last full one.
    #[serde(deserialize_with = "text::optional")]
    pub differential: Option<String>,
    /// What changed since the last of any kind.
    #[serde(deserialize_with = "text::optional")]
    pub incremental: Option<String>,
    /// Restore tests of each repository.
    #[serde(deserialize_with = "text::optional")]
    pub restore_test: Option<String>,
}

impl Default for BackupSchedule {
    fn default() -> BackupSchedule {
        BackupSchedule {
            full: Some("0 2 * * SUN".into()),
            differential: Some("0 2 * * MON-SAT".into()),
            incremental: None,
            restore_test: Some("0 5 * * SUN".into()),
        }
    }
}
