//! A server on restored files, for this process alone: it listens on a socket that only its owner can reach.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::PgConnection;
use tokio::process::{Child, Command};

use super::place::{Place, connect};

/// How often it is asked whether it has recovered.
const LOOK: Duration = Duration::from_millis(100);
/// Its socket is in a directory of its own, where no other has this number.
const PORT: u16 = 5432;

/// What recovery needs to be at least what it was on the server.
const SETTINGS: [&str; 6] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "shared_preload_libraries",
];

/// A running server.
pub(super) struct Instance {
    process: Child,
    /// Directory of its socket, its access file and its log.
    scratch: PathBuf,
}

/// The live server's settings that a restored one has to have.
pub(super) async fn settings(place: &Place) -> Result<Vec<(String, String)>> {
    let mut server = place.connect("postgres").await?;
    let names: Vec<String> = SETTINGS.map(str::to_owned).into();
    let settings = sqlx::query_as("select name, setting from pg_settings where name = any($1)");
    Ok(settings.bind(names).fetch_all(&mut server).await?)
}

impl Instance {
    /// Starts a server on `data`; `scratch` is a directory for what else it needs. `settings` come over those that
    /// were restored.
    pub(super) fn start(
        place: &Place,
        data: &Path,
        scratch: &Path,
        settings: &[(String, String)],
    ) -> Result<Instance> {
        let access = scratch.join("pg_hba.conf");
        std::fs::write(&access, "local all all trust\n")?;
        let identities = scratch.join("pg_ident.conf");
        std::fs::write(&identities, "")?;
        let empty = scratch.join("postgresql.conf");
        std::fs::write(&empty, "")?;
        // Debian keeps the configuration apart from the data, so there may be none.
        let restored = data.join("postgresql.conf");
        let file = if settings.is_empty() && restored.exists() { restored } else { empty };
        let log = File::create(scratch.join("log"))?;
        let mut server = Command::new(place.programs(data)?.join("postgres"));
        server.arg("-D").arg(data);
        let own = [
            ("config_file", file.display().to_string()),
            ("hba_file", access.display().to_string()),
            ("ident_file", identities.display().to_string()),
            ("listen_addresses", String::new()),
            ("unix_socket_directories", scratch.display().to_string()),
            // Who reaches the socket is let in as anybody.
            ("unix_socket_permissions", "0700".to_owned()),
            ("port", PORT.to_string()),
            ("archive_mode", "off".to_owned()),
            ("ssl", "off".to_owned()),
            ("shared_buffers", "128MB".to_owned()),
            ("logging_collector", "off".to_owned()),
            ("log_destination", "stderr".to_owned()),
            ("restart_after_crash", "off".to_owned()),
            // Nothing may change in it but by recovery.
            ("autovacuum", "off".to_owned()),
            ("timescaledb.max_background_workers", "0".to_owned()),
        ];
        let own = own.iter().map(|(name, value)| (*name, value.as_str()));
        let settings = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in own.chain(settings) {
            server.arg("-c").arg(format!("{name}={value}"));
        }
        let process = server
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("postgres cannot be run, see backup.programs")?;
        Ok(Instance { process, scratch: scratch.to_owned() })
    }

    /// Waits until it has recovered and takes writes.
    pub(super) async fn recovered(&mut self, place: &Place) -> Result<()> {
        loop {
            if self.process.try_wait()?.is_some() {
                bail!("recovery failed: {}", self.last_words());
            }
            if let Ok(mut connection) = self.connect(place, "postgres").await {
                let recovering: bool = sqlx::query_scalar("select pg_is_in_recovery()")
                    .fetch_one(&mut connection)
                    .await?;
                if !recovering {
                    return Ok(());
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A connection to one of its databases.
    pub(super) async fn connect(
        &self,
        place: &Place,
        database: &str,
    ) -> sqlx::Result<PgConnection> {
        let socket = self.scratch.display().to_string();
        connect(&socket, PORT, &place.config.user, database).await
    }

    /// Stops it in good order.
    pub(super) async fn stop(mut self) -> Result<()> {
        if let Some(pid) = self.process.id() {
            kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGINT)?;
        }
        self.process.wait().await?;
        Ok(())
    }

    /// Why it ended, as its log says.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.scratch.join("log")).unwrap_or_default();
        let fatal: Vec<&str> = log
            .lines()
            .filter_map(|line| line.split_once("FATAL:").or_else(|| line.split_once("PANIC:")))
            .map(|(_, reason)| reason.trim())
            .collect();
        match fatal.is_empty() {
            true => log.lines().next_back().unwrap_or("it said nothing").to_owned(),
            false => fatal.join("; "),
        }
    }
}
