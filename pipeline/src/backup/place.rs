//! Where the cluster and its backups are, and who may touch them.

use std::fmt::Write as _;
use std::fs::{DirBuilder, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown,
};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::{Gid, Uid, User, geteuid, initgroups, setgid, setuid};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};

use crate::config::{BackupConfig, Config, RepositoryConfig};

/// The cluster, and what this process needs to back it up.
#[derive(Debug)]
pub struct Place {
    pub(super) config: BackupConfig,
    pub(super) data: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) owner: String,
    /// The database whose tables restore tests compare.
    pub(super) database: String,
}

impl Place {
    /// Looks the cluster up, writes pgBackRest's configuration, and goes on as the owner of the data directory: for
    /// good, and for the whole process.
    pub fn take(config: &Config) -> Result<Place> {
        let backup = config.backup.clone();
        let data =
            backup.data.clone().context("backup.data is not set: name the data directory")?;
        ensure!(backup.repository.url.is_some(), "backup.repository.url is not set");
        let data = PathBuf::from(data);
        let found = std::fs::metadata(&data)
            .with_context(|| format!("backup.data: {} cannot be looked at", data.display()))?;
        let (uid, gid) = (Uid::from_raw(found.uid()), Gid::from_raw(found.gid()));
        let owner = User::from_uid(uid)?.with_context(|| format!("user {uid} has no name"))?;
        ensure!(!uid.is_root(), "backup.data: {} belongs to root", data.display());
        ensure!(
            geteuid() == uid || geteuid().is_root(),
            "backup.data: run as {}, who owns {}, or as root",
            owner.name,
            data.display()
        );
        let database = database_of(&config.database.url)?;
        let folder = PathBuf::from(&backup.folder);
        let place = Place { config: backup, data, folder, owner: owner.name.clone(), database };
        place.prepare(uid, gid)?;
        if geteuid() != uid {
            let name = std::ffi::CString::new(owner.name)?;
            setgid(gid).and_then(|()| initgroups(&name, gid)).and_then(|()| setuid(uid))?;
        }
        // Children must not begin in a directory that the owner cannot read.
        std::env::set_current_dir(&place.folder)?;
        Ok(place)
    }

    fn prepare(&self, uid: Uid, gid: Gid) -> Result<()> {
        let named = |path: &Path| format!("backup.folder: cannot write {}", path.display());
        let scratch = self.folder.join("scratch");
        for directory in [&self.folder, &self.folder.join("lock"), &scratch] {
            let made = match directory.is_dir() {
                true => Ok(()),
                false if *directory == scratch => DirBuilder::new().mode(0o700).create(directory),
                false => std::fs::create_dir_all(directory),
            };
            made.with_context(|| named(directory))?;
            chown(directory, Some(uid.as_raw()), Some(gid.as_raw()))
                .with_context(|| named(directory))?;
        }
        // What earlier versions made was open to all.
        std::fs::set_permissions(&scratch, Permissions::from_mode(0o700))
            .with_context(|| named(&scratch))?;
        let file = self.configuration();
        let fresh = file.with_extension("new");
        let text = self.render()?;
        if std::fs::read_to_string(&file).is_ok_and(|there| there == text) {
            return Ok(());
        }
        let _ = std::fs::remove_file(&fresh);
        let mut options = std::fs::OpenOptions::new();
        let mut opened = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)
            .with_context(|| named(&fresh))?;
        opened.write_all(text.as_bytes()).and_then(|()| opened.sync_all())?;
        chown(&fresh, Some(uid.as_raw()), Some(gid.as_raw()))?;
        std::fs::rename(&fresh, &file).with_context(|| named(&file))
    }

    /// pgBackRest's configuration, secrets included.
    pub(super) fn configuration(&self) -> PathBuf {
        self.folder.join("pgbackrest.conf")
    }

    /// Numbers of the repositories.
    pub(super) fn repositories(&self) -> Vec<u32> {
        self.config.repositories().map(|(number, _)| number).collect()
    }

    /// Those of `repositories`, all where none is named.
    pub(super) fn wanted(&self, repositories: &[u32]) -> Vec<u32> {
        match repositories {
            [] => self.repositories(),
            named => named.to_vec(),
        }
    }

    /// Refuses a repository in a folder that is not there: pgBackRest would make it, on whatever disk is below.
    pub(super) fn check_folder(&self, repository: u32) -> Result<()> {
        let set = self.config.repositories().find(|(number, _)| *number == repository);
        let (_, config) = set.with_context(|| format!("there is no repository {repository}"))?;
        if let Some(path) = config.url.as_deref().and_then(|url| url.strip_prefix("file://")) {
            ensure!(
                Path::new(path).is_dir(),
                "backup.{}.url: {path} is no folder: create it, or mount what belongs there",
                section(repository)
            );
        }
        Ok(())
    }

    fn render(&self) -> Result<String> {
        let config = &self.config;
        let mut text = format!(
            "# written by tapeline\n[global]\nlog-level-file=off\nlog-level-console=warn\nlog-level-stderr=off\n\
             lock-path={}\nstart-fast=y\ncompress-type=zst\nprocess-max={}\n",
            self.folder.join("lock").display(),
            config.processes
        );
        for (number, repository) in config.repositories() {
            render_repository(&mut text, number, repository)?;
        }
        write!(
            text,
            "[{}]\npg1-path={}\npg1-socket-path={}\npg1-port={}\npg1-user={}\n",
            config.stanza,
            self.data.display(),
            config.socket,
            config.port,
            config.user
        )?;
        Ok(text)
    }

    /// A connection to a database of the live cluster, as its superuser.
    pub(super) async fn connect(&self, database: &str) -> Result<PgConnection> {
        connect(&self.config.socket, self.config.port, &self.config.user, database)
            .await
            .with_context(|| {
                format!(
                    "backup.socket, backup.port, backup.user: {} cannot connect to {database}",
                    self.owner
                )
            })
    }

    /// Directory of PostgreSQL's programs, of the version that made `data`: the live directory may be gone.
    pub(super) fn programs(&self, data: &Path) -> Result<PathBuf> {
        if let Some(programs) = &self.config.programs {
            return Ok(programs.into());
        }
        let file = data.join("PG_VERSION");
        let version = std::fs::read_to_string(&file)
            .with_context(|| format!("{} cannot be read, see backup.programs", file.display()))?;
        Ok(format!("/usr/lib/postgresql/{}/bin", version.trim()).into())
    }
}

/// A connection over a socket.
pub(super) async fn connect(
    socket: &str,
    port: u16,
    user: &str,
    database: &str,
) -> sqlx::Result<PgConnection> {
    let options = PgConnectOptions::new_without_pgpass()
        .socket(socket)
        .port(port)
        .username(user)
        .database(database)
        .application_name("tapeline-backup");
    PgConnection::connect_with(&options).await
}

/// The database that a URL names; the user's own where it names none.
fn database_of(url: &str) -> Result<String> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|_| anyhow::anyhow!("database.url: cannot be read as a url"))?;
    Ok(options.get_database().unwrap_or(options.get_username()).to_owned())
}

/// Section of the configuration.
const fn section(repository: u32) -> &'static str {
    if repository == 1 { "repository" } else { "second_repository" }
}

fn render_repository(text: &mut String, number: u32, repository: &RepositoryConfig) -> Result<()> {
    let url = repository.url.as_deref().unwrap_or_default();
    match url.split_once("://") {
        Some(("file", path)) => writeln!(text, "repo{number}-path={path}")?,
        Some(("s3", rest)) => {
            let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
            writeln!(
                text,
                "repo{number}-type=s3\nrepo{number}-s3-bucket={bucket}\nrepo{number}-path=/{path}"
            )?;
        }
        _ => bail!("backup.{}.url: expected file:///folder or s3://bucket/folder", section(number)),
    }
    if !repository.passphrase.is_empty() {
        let passphrase = &repository.passphrase;
        writeln!(
            text,
            "repo{number}-cipher-type=aes-256-cbc\nrepo{number}-cipher-pass={passphrase}"
        )?;
    }
    writeln!(text, "repo{number}-retention-full={}", repository.keep_full)?;
    for (name, value) in &repository.properties {
        writeln!(text, "repo{number}-{name}={value}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_is_that_of_the_url_whatever_its_query_says_s4() {
        for (url, database) in [
            ("postgres://u:p@h:5432/tape?sslmode=verify-full&sslrootcert=/x/ca.pem", "tape"),
            ("postgres://u:p@h/my%20tape", "my tape"),
            ("postgres://u:p@h:5432", "u"),
        ] {
            assert_eq!(database_of(url).expect("a url"), database);
        }
        assert!(database_of("tape").is_err());
    }
}
