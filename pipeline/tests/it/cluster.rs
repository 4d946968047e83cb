//! Services of a test's own, for what belongs to a whole server.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

const SERVICES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/services");

/// PostgreSQL, and Redis where it is named, of the test's own; gone with it.
pub(crate) struct Cluster {
    directory: PathBuf,
    port: u16,
    redis_port: u16,
}

impl Cluster {
    /// Starts `services` for the test `name`.
    pub(crate) fn new(name: &str, services: &[&str]) -> Cluster {
        let (port, redis_port) = (free_port(), free_port());
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{port}"));
        let cluster = Cluster { directory, port, redis_port };
        cluster.services(&[&["up"], services].concat());
        cluster
    }

    fn services(&self, arguments: &[&str]) {
        let done = Command::new(SERVICES)
            .args(arguments)
            .env("TAPELINE_SERVICES_DIR", &self.directory)
            .env("TAPELINE_POSTGRES_PORT", self.port.to_string())
            .env("TAPELINE_REDIS_PORT", self.redis_port.to_string())
            .status()
            .expect("scripts/services");
        assert!(done.success(), "scripts/services {arguments:?}");
    }

    pub(crate) fn url(&self, user: &str, password: &str) -> String {
        format!("postgres://{user}:{password}@127.0.0.1:{}/tapeline", self.port)
    }

    pub(crate) fn redis_url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.redis_port)
    }

    /// The superuser that initdb made, with the password it was given.
    pub(crate) fn superuser(&self) -> String {
        let file = self.directory.join("postgres/pgpass");
        let line = std::fs::read_to_string(file).expect("pgpass");
        let password = line.trim().rsplit(':').next().expect("a password").to_owned();
        self.url("postgres", &password)
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("address").port()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let purge = Command::new(SERVICES)
            .arg("purge")
            .env("TAPELINE_SERVICES_DIR", &self.directory)
            .env("TAPELINE_POSTGRES_PORT", self.port.to_string())
            .env("TAPELINE_REDIS_PORT", self.redis_port.to_string())
            .status();
        if purge.is_ok_and(|status| status.success()) {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}
