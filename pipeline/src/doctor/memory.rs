//! The machine that the database is on.

use crate::config::Config;

/// Its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Memory in bytes.
    pub memory: i64,
    /// Cores.
    pub cores: i64,
}

/// This machine, where the database is on it.
pub(super) fn of_database(config: &Config) -> Option<Machine> {
    let url = url::Url::parse(config.database.read_url()).ok()?;
    let local = url.host_str().is_none_or(|host| {
        host == "localhost"
            || host
                .trim_matches(['[', ']'])
                .parse()
                .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    });
    local.then(here).flatten()
}

fn here() -> Option<Machine> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let cores = std::thread::available_parallelism().ok()?.get() as i64;
    Some(Machine { memory: kib * 1_024, cores })
}
