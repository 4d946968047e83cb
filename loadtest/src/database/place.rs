//! A database and a folder of the benchmark's own, and room for both.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use sqlx::{Connection as _, Executor, PgConnection};
use tapeline::config::{Config, with_path};

/// Bytes on the disk a trade takes at most: row, index, its share of log, archive and export.
const BYTES_A_ROW: u64 = 260;
/// And what the log may take besides.
const BYTES_BESIDE: u64 = 9 << 30;
const MIB: u64 = 1 << 20;

pub(super) struct Place {
    pub(super) name: String,
    pub(super) url: String,
    pub(super) folder: PathBuf,
    admin_url: String,
}

impl Place {
    /// Makes both, where there is room for `rows` trades.
    pub(super) async fn new(rows: u64) -> Result<Place> {
        let admin_url = Config::load(None)?.database.url;
        let mut admin = PgConnection::connect(&admin_url).await.context("database")?;
        let name = format!("bench_db_{}", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        std::fs::create_dir_all(folder.join("archive"))?;
        room(&data_folder(&mut admin).await, rows)?;
        room(&folder, rows)?;
        let template =
            std::env::var("TAPELINE_DB_TEMPLATE").unwrap_or_else(|_| "template1".to_owned());
        let create = format!("create database {name} template {template}");
        admin.execute(create.as_str()).await.context("creating the benchmark's database")?;
        let url = with_path(&admin_url, &name);
        let place = Place { name, url, folder, admin_url };
        tapeline::migrate::up(&place.url).await?;
        Ok(place)
    }

    pub(super) async fn database(&self) -> Result<PgConnection> {
        connect(&self.url).await
    }

    /// Runs `tapeline` on this place with the archive's rules of `lifecycle` (JSON).
    pub(super) fn tapeline(
        &self,
        arguments: &[&str],
        lifecycle: serde_json::Value,
    ) -> Result<String> {
        let mut config = serde_json::to_value(Config::default())?;
        config["database"]["url"] = self.url.clone().into();
        config["archive"]["url"] =
            format!("file://{}", self.folder.join("archive").display()).into();
        config["log"]["level"] = "warn".into();
        config["lifecycle"] = lifecycle;
        let file = self.folder.join("tapeline.json");
        std::fs::write(&file, config.to_string())?;
        let binary = std::env::current_exe()?.with_file_name("tapeline");
        ensure!(binary.is_file(), "{} is not built: `make build`", binary.display());
        let mut command = Command::new(binary);
        crate::bench::without_overrides(&mut command);
        let done = tokio::task::block_in_place(|| {
            command.arg("--config").arg(&file).args(arguments).stdin(Stdio::null()).output()
        })?;
        if !done.status.success() {
            bail!("tapeline {}: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr));
        }
        Ok(String::from_utf8(done.stdout)?)
    }

    /// Removes both.
    pub(super) async fn remove(self) -> Result<()> {
        let mut admin = PgConnection::connect(&self.admin_url).await.context("database")?;
        let drop = format!("drop database if exists {} with (force)", self.name);
        admin.execute(drop.as_str()).await.context("dropping the benchmark's database")?;
        std::fs::remove_dir_all(&self.folder).context("removing the benchmark's folder")
    }
}

/// The benchmark's database, for who cannot hold its place.
pub(super) async fn connect(url: &str) -> Result<PgConnection> {
    PgConnection::connect(url).await.context("the benchmark's database")
}

/// Where the server keeps its data, as far as that can be found out from here.
async fn data_folder(admin: &mut PgConnection) -> PathBuf {
    let told: Result<String, _> =
        sqlx::query_scalar("select current_setting('data_directory')").fetch_one(admin).await;
    // only superusers are told; then the one of `scripts/services`, or the disk this runs on
    let known = [told.ok().map(PathBuf::from), Some(".services/postgres".into())];
    known.into_iter().flatten().find(|folder| folder.exists()).unwrap_or_else(|| ".".into())
}

fn room(folder: &Path, rows: u64) -> Result<()> {
    let done = Command::new("df").args(["--output=avail", "-B1"]).arg(folder).output()?;
    let free: u64 = String::from_utf8_lossy(&done.stdout)
        .lines()
        .last()
        .and_then(|line| line.trim().parse().ok())
        .with_context(|| format!("df does not say what is free below {}", folder.display()))?;
    let wanted = rows * BYTES_A_ROW + BYTES_BESIDE.min(rows * BYTES_A_ROW);
    ensure!(
        free >= wanted,
        "{}: {} MiB are free, {} MiB are needed for {rows} trades: fewer with --rows",
        folder.display(),
        free / MIB,
        wanted / MIB
    );
    Ok(())
}
