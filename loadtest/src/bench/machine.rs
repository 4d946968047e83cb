//! Where a run takes place.

use std::process::Command;

use anyhow::{Context as _, Result};
use sqlx::{Connection as _, PgConnection};
use tapeline::config::Config;

use super::results::Machine;

/// Date (UTC), commit and machine.
pub(crate) async fn describe() -> Result<(String, String, Machine)> {
    let config = Config::load(None)?;
    let mut database = PgConnection::connect(&config.database.url).await.context("database")?;
    let ask = "select to_char(now() at time zone 'utc', 'YYYY-MM-DD'), \
               current_setting('server_version'), \
               coalesce((select default_version from pg_available_extensions where name = 'timescaledb'), 'none')";
    let (date, postgres, timescaledb): (String, String, String) =
        sqlx::query_as(ask).fetch_one(&mut database).await?;
    let machine = Machine {
        processor: field("/proc/cpuinfo", "model name").unwrap_or_default(),
        cores: std::thread::available_parallelism()?.get(),
        memory_gib: field("/proc/meminfo", "MemTotal")
            .and_then(|text| text.split(' ').next()?.parse::<f64>().ok())
            .map_or(0.0, |kib| (kib / 1024.0 / 1024.0).round()),
        system: [system_name(), read("/proc/sys/kernel/osrelease")].join(", Linux "),
        postgres: postgres.split(' ').next().unwrap_or_default().to_owned(),
        timescaledb,
        load_before: read("/proc/loadavg")
            .split(' ')
            .next()
            .and_then(|load| load.parse().ok())
            .unwrap_or_default(),
    };
    Ok((date, commit(), machine))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// The first value of a key in a file of `key: value` lines.
fn field(path: &str, key: &str) -> Option<String> {
    let text = read(path);
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn system_name() -> String {
    let release = read("/etc/os-release");
    let line = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.unwrap_or_default().trim_matches('"').to_owned()
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=10", "HEAD"]) else { return "unknown".into() };
    // The results are written by the run itself.
    let changed = git(&["status", "--porcelain", "--", ".", ":!loadtest/results"]);
    if changed.is_none_or(|changed| changed.is_empty()) { commit } else { commit + "+" }
}
