//! Services of the harness's own, which it may stop, freeze and cut off.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};

use super::proxy::Proxy;
use super::site::{Addresses, Site};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/services");

/// A broker behind a proxy, a database and a Redis, in a directory that is removed at the end.
pub(crate) struct OwnServices {
    pub(crate) site: Arc<Site>,
    /// In front of the broker: it advertises this proxy's port, so that no client goes past it.
    pub(crate) kafka: Proxy,
    control: Control,
}

/// Starts and stops single services.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    dir: PathBuf,
    environment: Vec<(&'static str, String)>,
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl OwnServices {
    pub(crate) async fn start(dir: &Path) -> Result<OwnServices> {
        let dir = dir.join("services");
        std::fs::create_dir_all(dir.join("kafka"))?;
        let (kafka, postgres, redis) = (free_port()?, free_port()?, free_port()?);
        let proxy = Proxy::start(0, &format!("127.0.0.1:{kafka}"), b"").await?;
        let mut environment = vec![
            ("TAPELINE_SERVICES_DIR", dir.display().to_string()),
            ("TAPELINE_KAFKA_PORT", kafka.to_string()),
            ("TAPELINE_KAFKA_CONTROLLER_PORT", free_port()?.to_string()),
            ("TAPELINE_KAFKA_ADVERTISED_PORT", proxy.port.to_string()),
            ("TAPELINE_POSTGRES_PORT", postgres.to_string()),
            ("TAPELINE_REDIS_PORT", redis.to_string()),
        ];
        if let Ok(libraries) = std::env::var("TAPELINE_KAFKA_LIBS") {
            environment.push(("TAPELINE_KAFKA_LIBS", libraries));
        }
        let control = Control { dir, environment };
        // Whatever fails from here on, what was started is stopped.
        let guard = Guard(Some(control.clone()));
        control.run("up", &["kafka", "postgres", "redis"]).await?;
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
        Ok(OwnServices { site, kafka: proxy, control })
    }

    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    pub(crate) async fn finish(&self) -> Result<()> {
        self.site.finish().await?;
        self.control.run("purge", &[]).await
    }
}

impl Drop for OwnServices {
    fn drop(&mut self) {
        Guard(Some(self.control.clone()));
    }
}

/// Removes services when it goes.
struct Guard(Option<Control>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(control) = self.0.take() {
            // Nothing better can be done where it fails; purging twice is harmless.
            let _ = control.command("purge", &[]).output();
        }
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

    /// Sends `KILL`, `STOP` or `CONT` to a service.
    pub(crate) fn signal(&self, service: &str, signal: &str) -> Result<()> {
        let pid = self.pid(service)?.to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid]).status()?;
        ensure!(sent.success(), "kill -{signal} of {service} failed");
        Ok(())
    }
}
