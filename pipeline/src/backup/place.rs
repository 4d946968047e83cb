//! Where the cluster and its backups are, and who may touch them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};

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
        let (_, database) = config.database.url.rsplit_once('/').unwrap_or_default();
        let database = database.split('?').next().unwrap_or_default().to_owned();
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
        for directory in
            [self.folder.clone(), self.folder.join("lock"), self.folder.join("scratch")]
        {
            std::fs::create_dir_all(&directory).with_context(|| named(&directory))?;
            chown(&directory, Some(uid.as_raw()), Some(gid.as_raw()))
                .with_context(|| named(&directory))?;
        }
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

    /// Directory of PostgreSQL's programs.
    pub(super) fn programs(&self) -> Result<PathBuf> {
        if let Some(programs) = &self.config.programs {
            return Ok(programs.into());
        }
        let file = self.data.join("PG_VERSION");
        let version = std::fs::read_to_string(&file)
            .with_context(|| format!("backup.data: {} cannot be read", file.display()))?;
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

fn render_repository(text: &mut String, number: u32, repository: &RepositoryConfig) -> Result<()> {
    let section = if number == 1 { "repository" } else { "second_repository" };
    let url = repository.url.as_deref().unwrap_or_default();
    match url.split_once("://") {
        Some(("file", path)) => {
            ensure!(
                Path::new(path).is_dir(),
                "backup.{section}.url: {path} is no folder: create it, or mount what belongs there"
            );
            writeln!(text, "repo{number}-path={path}")?;
        }
        Some(("s3", rest)) => {
            let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
            writeln!(
                text,
                "repo{number}-type=s3\nrepo{number}-s3-bucket={bucket}\nrepo{number}-path=/{path}"
            )?;
        }
        _ => bail!("backup.{section}.url: expected file:///folder or s3://bucket/folder"),
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
