//! Which files go.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tracing::info;

use super::Limits;

/// A file that a connector kept: of run `run`, its number `number`; 0 holds the tables that the run's other files need.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kept {
    run: u64,
    number: u64,
    bytes: u64,
    modified: SystemTime,
    path: PathBuf,
}

/// `VENUE.RUN.NUMBER.zst`.
pub(super) fn path(dir: &Path, venue: &str, run: i64, number: u64) -> PathBuf {
    dir.join(format!("{venue}.{run}.{number}.zst"))
}

/// The files of `venue`, oldest first.
pub(super) fn list(dir: &Path, venue: &str) -> io::Result<Vec<Kept>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let parts: Vec<&str> = name.to_str().unwrap_or_default().split('.').collect();
        let [of, run, number, "zst"] = parts.as_slice() else { continue };
        let (Ok(run), Ok(number)) = (run.parse(), number.parse()) else { continue };
        if *of == venue {
            // One that another process removed meanwhile is gone.
            let Ok(data) = entry.metadata() else { continue };
            let (bytes, modified, path) = (data.len(), data.modified()?, entry.path());
            found.push(Kept { run, number, bytes, modified, path });
        }
    }
    found.sort();
    Ok(found)
}

/// Removes what is too old or too much, never what is written just now. A run's tables go with the last of its files.
pub(super) fn enforce(
    limits: &Limits,
    venue: &str,
    now: SystemTime,
    writing: &Path,
) -> io::Result<()> {
    let files = list(&limits.dir, venue)?;
    let mut total: u64 = files.iter().map(|file| file.bytes).sum();
    let mut left = files.clone();
    for file in files.iter().filter(|file| file.number > 0 && file.path != writing) {
        let age = now.duration_since(file.modified).unwrap_or(Duration::ZERO);
        if total <= limits.max_bytes && age <= limits.max_age {
            continue;
        }
        fs::remove_file(&file.path)?;
        info!(file = %file.path.display(), bytes = file.bytes, "old raw frames removed");
        total -= file.bytes;
        left.retain(|other| other != file);
    }
    let of_this_run = |file: &Kept| {
        writing.file_name().is_some_and(|name| {
            name.to_string_lossy().starts_with(&format!("{venue}.{}.", file.run))
        })
    };
    for tables in left.iter().filter(|file| file.number == 0 && !of_this_run(file)) {
        if !left.iter().any(|file| file.run == tables.run && file.number > 0) {
            fs::remove_file(&tables.path)?;
        }
    }
    Ok(())
}
