//! Stages as processes of their own, as they run in production.

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::site::{Site, eventually, tail};

/// How long a stage may take to start, or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Prefixes of variables that would come over the configuration of a stage.
const OVERRIDES: [&str; 3] = ["TAPELINE__", "TIMESCALE_", "REDIS_URL"];

/// Keeps the environment from a process whose configuration is a file.
pub(crate) fn without_overrides(command: &mut Command) {
    for (variable, _) in std::env::vars_os() {
        let text = variable.to_string_lossy();
        if OVERRIDES.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&variable);
        }
    }
}

/// A process of `tapeline` that does not outlive its benchmark.
pub(crate) struct StageProcess {
    /// Name of the stage.
    pub(crate) name: &'static str,
    child: Child,
    log: PathBuf,
    metrics: String,
    client: reqwest::Client,
}

impl StageProcess {
    /// Starts `tapeline <stage>` on `site`, and waits until it serves its metrics. `number` tells
    /// several processes of a stage apart.
    pub(crate) async fn start(
        site: &Site,
        name: &'static str,
        number: usize,
    ) -> Result<StageProcess> {
        let mut stage = StageProcess::spawn(site, name, number)?;
        eventually("the stage serves its metrics", PATIENCE, async || {
            stage.check()?;
            let answer = stage.client.get(&stage.metrics).send().await;
            Ok(answer.is_ok().then_some(()))
        })
        .await?;
        Ok(stage)
    }

    /// Starts it and waits for nothing.
    pub(crate) fn spawn(site: &Site, name: &'static str, number: usize) -> Result<StageProcess> {
        let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut config = serde_json::to_value(&site.config)?;
        config["http"]["listen"] = listen.to_string().into();
        let file = site.dir.join(format!("{name}-{number}.json"));
        std::fs::write(&file, config.to_string())?;
        let log = site.dir.join(format!("{name}-{number}.log"));
        let binary = std::env::current_exe()?.with_file_name("tapeline");
        ensure!(binary.is_file(), "{} is not built: `make build`", binary.display());
        let mut command = Command::new(binary);
        without_overrides(&mut command);
        let child = command
            .arg("--config")
            .arg(&file)
            .arg(name)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("the stage does not start")?;
        let metrics = format!("http://{listen}/metrics");
        Ok(StageProcess { name, child, log, metrics, client: reqwest::Client::new() })
    }

    /// An error where the process has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}\n{}", self.name, tail(&self.log)),
        }
    }

    /// Records that the consumer group `stage` of this process has taken so far, whatever became of them.
    pub(crate) async fn records(&mut self, stage: &str) -> Result<u64> {
        self.check()?;
        let text = self.client.get(&self.metrics).send().await?.text().await?;
        let label = format!("stage=\"{stage}\"");
        Ok(text
            .lines()
            .filter(|line| {
                line.starts_with("tapeline_stage_records_total{") && line.contains(&label)
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>() as u64)
    }

    /// The most memory it has held since its start or the last [`StageProcess::forget_peak`], in MiB.
    pub(crate) fn peak_mib(&self) -> Result<f64> {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
        Ok(kib.with_context(|| format!("{path} has no VmHWM"))? / 1_024.0)
    }

    /// Lets the peak begin again at what is held now.
    pub(crate) fn forget_peak(&self) -> Result<()> {
        let path = format!("/proc/{}/clear_refs", self.child.id());
        std::fs::write(&path, "5").with_context(|| path.clone())
    }

    /// Stops it as a supervisor does.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.check()?;
        let status = Command::new("kill").arg(self.child.id().to_string()).status()?;
        ensure!(status.success(), "{} could not be stopped", self.name);
        let child = &mut self.child;
        let ended = eventually("the stage ends", PATIENCE, async || Ok(child.try_wait()?)).await?;
        ensure!(ended.success(), "{} ended badly: {ended}\n{}", self.name, tail(&self.log));
        Ok(())
    }
}

impl Drop for StageProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
