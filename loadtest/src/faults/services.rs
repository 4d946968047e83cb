//! Services of the harness's own, which it may stop, freeze and cut off.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::site::{Addresses, Site};
use crate::proxy::{Proxy, Weather};
use crate::random::Random;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/services");

/// How long a killed service may take to be gone.
const DEATH: Duration = Duration::from_secs(60);
const SERVICES: [&str; 3] = ["kafka", "postgres", "redis"];

/// A broker behind a proxy, a database and a Redis, in a directory that is removed at the end.
pub(crate) struct OwnServices {
    pub(crate) site: Arc<Site>,
    /// In front of the broker: it advertises this proxy's port, so that no client goes past it.
    pub(crate) kafka: Proxy,
    control: Control,
    /// Everything was removed in good order.
    is_gone: AtomicBool,
}

/// Starts and stops single services.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    dir: PathBuf,
    environment: Vec<(&'static str, String)>,
}

/// A mounted file system that is unmounted when it goes.
pub(crate) struct SmallDisk(PathBuf);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the database may still have a file open.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Below the ports that systems give to clients: while a service is down nobody else gets its
/// port, and no client that tries again and again connects to itself.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// Ports that are free, and not among each other's.
fn free_ports<const COUNT: usize>() -> Result<[u16; COUNT]> {
    let mut random = Random::new(u64::from(std::process::id()));
    let mut ports = [0; COUNT];
    for place in 0..COUNT {
        let drawn = std::iter::repeat_with(|| {
            PORTS.start + random.below(u64::from(PORTS.end - PORTS.start)) as u16
        });
        let free =
            |port: &u16| !ports.contains(port) && TcpListener::bind(("127.0.0.1", *port)).is_ok();
        ports[place] = drawn.take(1_000).find(free).context("no free port")?;
    }
    Ok(ports)
}

impl OwnServices {
    pub(crate) async fn start(dir: &Path) -> Result<OwnServices> {
        let dir = dir.join("services");
        std::fs::create_dir_all(dir.join("kafka"))?;
        let [kafka, controller, advertised, postgres, redis] = free_ports()?;
        let proxy = Proxy::start(advertised, &format!("127.0.0.1:{kafka}"), b"").await?;
        let mut environment = vec![
            ("TAPELINE_SERVICES_DIR", dir.display().to_string()),
            ("TAPELINE_KAFKA_PORT", kafka.to_string()),
            ("TAPELINE_KAFKA_CONTROLLER_PORT", controller.to_string()),
            ("TAPELINE_KAFKA_ADVERTISED_PORT", proxy.port.to_string()),
            ("TAPELINE_POSTGRES_PORT", postgres.to_string()),
            ("TAPELINE_REDIS_PORT", redis.to_string()),
        ];
        if let Ok(libraries) = std::env::var("TAPELINE_KAFKA_LIBS") {
            environment.push(("TAPELINE_KAFKA_LIBS", libraries));
        }
        let control = Control { dir, environment };
        // Whatever fails from here on, what was started is stopped.
        let guard = Guard(control.clone());
        control.run("up", &SERVICES).await?;
        let addresses = Addresses {
            brokers: format!("127.0.0.1:{}", proxy.port),
            database: format!("postgres://tapeline:tapeline@127.0.0.1:{postgres}/tapeline"),
            redis: format!("redis://127.0.0.1:{redis}/0"),
            template: "tapeline_template".to_owned(),
        };
        let files = control.dir.join("cases");
        std::fs::create_dir_all(&files)?;
        let site = Arc::new(Site::new(addresses, "own", files).await?);
        std::mem::forget(guard);
        Ok(OwnServices { site, kafka: proxy, control, is_gone: AtomicBool::new(false) })
    }

    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// Everything up and in fair weather, whatever the last case left.
    pub(crate) async fn heal(&self) -> Result<()> {
        self.kafka.set(Weather::default());
        for service in SERVICES {
            // It fails where there is no process, which is started below.
            let _ = self.control.signal(service, "CONT");
        }
        self.control.run("up", &SERVICES).await
    }

    /// A connection to the database of `url` as its superuser.
    pub(crate) async fn superuser(&self, url: &str) -> Result<PgConnection> {
        let file = self.control.dir.join("postgres/pgpass");
        let line = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let password = line.trim_end().rsplit(':').next().unwrap_or_default();
        let options = PgConnectOptions::from_str(url)?.username("postgres").password(password);
        Ok(PgConnection::connect_with(&options).await?)
    }

    /// The tablespace `small` on a file system of so many MiB.
    pub(crate) async fn small_disk(&self, mib: u32) -> Result<SmallDisk> {
        let dir = std::fs::canonicalize(self.control.dir.join("postgres"))?.join("small");
        std::fs::create_dir_all(&dir)?;
        let size = format!("size={mib}m");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&dir).output()?;
        ensure!(mount.status.success(), "{}", String::from_utf8_lossy(&mount.stderr).trim());
        let disk = SmallDisk(dir.clone());
        let owned = Command::new("chown").arg("postgres:").arg(&dir).status()?;
        ensure!(owned.success(), "chown of {} failed", dir.display());
        let mut admin = self.superuser(&self.site.database).await?;
        let create = format!("create tablespace small owner tapeline location '{}'", dir.display());
        admin.execute(create.as_str()).await?;
        Ok(disk)
    }

    /// Removes the tablespace, which nothing uses any more, and its file system.
    pub(crate) async fn remove(&self, disk: SmallDisk) -> Result<()> {
        let mut admin = self.superuser(&self.site.database).await?;
        admin.execute("drop tablespace small").await?;
        drop(disk);
        Ok(())
    }

    pub(crate) async fn finish(&self) -> Result<()> {
        self.site.finish().await?;
        self.control.run("purge", &[]).await?;
        self.is_gone.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for OwnServices {
    fn drop(&mut self) {
        if !self.is_gone.load(Ordering::Relaxed) {
            drop(Guard(self.control.clone()));
        }
    }
}

/// Removes services when it goes.
struct Guard(Control);

impl Drop for Guard {
    fn drop(&mut self) {
        // Nothing better can be done where it fails.
        let _ = self.0.command("purge", &[]).output();
    }
}

impl Control {
    fn command(&self, what: &str, services: &[&str]) -> Command {
        let mut command = Command::new(SCRIPT);
        command.arg(what).args(services);
        command.envs(self.environment.iter().map(|(key, value)| (*key, value)));
        command
    }

    async fn run(&self, what: &str, services: &[&str]) -> Result<()> {
        let mut command = self.command(what, services);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        if !output.status.success() {
            bail!("services {what} {services:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    pub(crate) async fn up(&self, service: &str) -> Result<()> {
        self.run("up", &[service]).await
    }

    pub(crate) async fn down(&self, service: &str) -> Result<()> {
        self.run("down", &[service]).await
    }

    /// The pid of a service that the script started here.
    fn pid(&self, service: &str) -> Result<u32> {
        let file = self.dir.join("run").join(format!("{service}.pid"));
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let pid = text.split_whitespace().next().and_then(|pid| pid.parse().ok());
        pid.with_context(|| format!("no pid in {}", file.display()))
    }

    /// SIGKILL, and waits until its port is free: a server with many threads dies slowly.
    pub(crate) async fn kill(&self, service: &str) -> Result<()> {
        self.signal(service, "KILL")?;
        let variable = format!("TAPELINE_{}_PORT", service.to_uppercase());
        let port = self.environment.iter().find(|(name, _)| *name == variable);
        let port: u16 = port.context("the service has a port")?.1.parse()?;
        let deadline = Instant::now() + DEATH;
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            ensure!(Instant::now() < deadline, "{service} still listens {DEATH:?} after SIGKILL");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Sends `KILL`, `STOP` or `CONT` to a service.
    pub(crate) fn signal(&self, service: &str, signal: &str) -> Result<()> {
        let pid = self.pid(service)?.to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid]).status()?;
        ensure!(sent.success(), "kill -{signal} of {service} failed");
        Ok(())
    }
}
