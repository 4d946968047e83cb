//! Time spent on a processor, as the kernel counts it: what a core could do, whoever else uses it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Of the calling thread, since it began.
pub(crate) fn of_thread() -> Result<Duration> {
    on_processor(Path::new("/proc/thread-self/schedstat"))
}

/// Of all threads of this process that have not ended.
pub(crate) fn of_process() -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for task in std::fs::read_dir("/proc/self/task").context("/proc/self/task")? {
        // A thread may end while the list is read.
        sum += on_processor(&task?.path().join("schedstat")).unwrap_or_default();
    }
    Ok(sum)
}

fn on_processor(path: &Path) -> Result<Duration> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Ok(Duration::from_nanos(nanos.with_context(|| format!("{}: no number", path.display()))?))
}
