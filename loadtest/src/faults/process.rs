//! Child processes that are signalled by their pid alone and never left behind.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How often a process is looked at while it is waited for.
const LOOK: Duration = Duration::from_millis(5);
/// Commands that wait to be started.
const SPAWNS: usize = 16;

type Spawned = std::io::Result<Child>;

/// Starts children from a thread that lives as long as this process: they are told to die with
/// the thread that started them, also where this process is killed.
static SPAWNER: LazyLock<mpsc::SyncSender<(Command, mpsc::SyncSender<Spawned>)>> =
    LazyLock::new(|| {
        let (requests, asked) = mpsc::sync_channel::<(Command, mpsc::SyncSender<Spawned>)>(SPAWNS);
        std::thread::spawn(move || {
            for (mut command, answer) in asked {
                // Nobody waits where the asking task was dropped: the child goes with it.
                if let Err(mpsc::SendError(Ok(mut child))) = answer.send(command.spawn()) {
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
        });
        requests
    });

/// A signal that the harness sends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Signal {
    Continue,
    Terminate,
}

/// A running process with its log.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    /// What it is, in messages.
    pub(crate) name: String,
}

impl Process {
    /// Starts `program` in a process group of its own, its output in the file `log`. Of the
    /// environment only what names no service is handed on.
    pub(crate) fn start(
        name: &str,
        program: &Path,
        arguments: &[String],
        environment: &[(&str, String)],
        log: PathBuf,
    ) -> Result<Process> {
        use std::os::unix::process::CommandExt as _;
        let output = File::create(&log).with_context(|| log.display().to_string())?;
        // The signal on the parent's death stays with the process that setpriv becomes.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program).args(arguments).process_group(0);
        for (key, _) in std::env::vars_os() {
            let key_text = key.to_string_lossy();
            let names_service = ["TAPELINE_", "TIMESCALE_", "REDIS_", "S3_"];
            if names_service.iter().any(|prefix| key_text.starts_with(prefix)) {
                command.env_remove(&key);
            }
        }
        command.envs(environment.iter().map(|(key, value)| (*key, value)));
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let (answer, started) = mpsc::sync_channel(1);
        SPAWNER.send((command, answer)).ok().context("the spawning thread is gone")?;
        let child = started.recv().context("the spawning thread is gone")?;
        let child = child.with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Process { child, log, name: name.to_owned() })
    }

    /// Sends a signal to this process, which cannot be another's: it has not been waited for.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let name = match signal {
            Signal::Continue => "-CONT",
            Signal::Terminate => "-TERM",
        };
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status()?;
        anyhow::ensure!(sent.success(), "{}: kill {name} failed", self.name);
        Ok(())
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Fails where it has ended by itself.
    pub(crate) fn still_runs(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}: {}", self.name, self.last_lines()),
        }
    }

    /// Waits for it to end by itself; `None` where it does not in time.
    pub(crate) async fn ended_within(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// SIGTERM, and waits for an orderly end.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.signal(Signal::Terminate)?;
        match self.ended_within(Duration::from_secs(60)).await? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("{} ended with {status}: {}", self.name, self.last_lines()),
            None => bail!("{} did not end within a minute of SIGTERM", self.name),
        }
    }

    /// Stops it as [`Process::stop`] does; what it printed, without its log.
    pub(crate) async fn said_at_its_end(self) -> Result<String> {
        let log = self.log.clone();
        self.stop().await?;
        let said = String::from_utf8_lossy(&std::fs::read(log)?).into_owned();
        Ok(said.lines().filter(|line| !line.starts_with('{')).collect::<Vec<_>>().join("\n"))
    }

    /// Whether all of it stands still after SIGSTOP.
    pub(crate) fn is_frozen(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    /// Resident memory in bytes; 0 where it has ended.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
        line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    /// Everything it has said.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub(crate) fn last_lines(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(4)..].iter();
        last.map(|line| line.chars().take(400).collect::<String>()).collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only where it has been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
