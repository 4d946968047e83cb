//! What is in the archive.

use anyhow::Result;
use serde::Serialize;

use super::day::Day;
use super::manifest::Manifest;
use super::read::verify;
use super::store::Store;

/// An archived day.
#[derive(Debug, Clone, Serialize)]
pub struct Archived {
    /// Kind of events.
    pub kind: String,
    /// UTC day of the events.
    pub day: Day,
    /// Rows.
    pub rows: u64,
    /// Objects.
    pub objects: usize,
    /// Size in bytes.
    pub bytes: u64,
    /// Why it does not verify; only where it was verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

impl Archived {
    fn of(manifest: &Manifest) -> Archived {
        Archived {
            kind: manifest.kind.clone(),
            day: manifest.day,
            rows: manifest.sum.rows,
            objects: manifest.files.len(),
            bytes: manifest.files.iter().map(|file| file.bytes).sum(),
            fault: None,
        }
    }
}

/// Every archived day, of one kind or all.
pub async fn list(store: &Store, kind: Option<&str>) -> Result<Vec<Archived>> {
    Ok(Manifest::all(store, kind).await?.iter().map(Archived::of).collect())
}

/// Reads every object back and compares it with its manifest.
pub async fn verify_all(store: &Store, kind: Option<&str>) -> Result<Vec<Archived>> {
    let mut checked = Vec::new();
    for manifest in Manifest::all(store, kind).await? {
        let fault = verify(store, &manifest).await.err().map(|error| format!("{error:#}"));
        checked.push(Archived { fault, ..Archived::of(&manifest) });
    }
    Ok(checked)
}
