//! What an archived day consists of: the manifest beside its files.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use futures_util::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use serde::{Deserialize, Serialize};

use super::columns::Column;
use super::day::Day;
use super::store::Store;
use super::tuples::RowSum;

/// Version of the manifest's form.
const VERSION: u32 = 1;
/// Beside the data, where readers of Hive-style folders do not look.
const FOLDER: &str = "_manifests";

/// One object of an archived day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ArchivedFile {
    /// Path below the archive's root.
    pub(crate) path: String,
    /// The venue, where the table has one.
    pub(crate) exchange: Option<String>,
    /// Size in bytes.
    pub(crate) bytes: u64,
    /// SHA-256 of the object, in hexadecimal.
    pub(crate) sha256: String,
    /// Its rows.
    pub(crate) sum: RowSum,
    /// Columns, as this file keeps them.
    pub(crate) columns: Vec<Column>,
}

/// A day of a kind in the archive. It is written last: without it, objects are leftovers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    version: u32,
    /// Kind of events, as in the folder's name.
    pub(crate) kind: String,
    /// Table they are from.
    pub(crate) table: String,
    /// UTC day of the events.
    pub(crate) day: Day,
    /// 0 for the first archive of the day; one more for what came after that one was dropped.
    pub(crate) generation: u32,
    /// All rows of the day.
    pub(crate) sum: RowSum,
    /// The objects, in the order of their rows.
    pub(crate) files: Vec<ArchivedFile>,
}

impl Manifest {
    pub(crate) fn new(
        kind: &str,
        table: &str,
        day: Day,
        generation: u32,
        files: Vec<ArchivedFile>,
    ) -> Manifest {
        let mut sum = RowSum::default();
        files.iter().for_each(|file| sum.add(file.sum));
        Manifest {
            version: VERSION,
            kind: kind.to_owned(),
            table: table.to_owned(),
            day,
            generation,
            sum,
            files,
        }
    }

    /// Where the manifest of a day is, below the archive's root.
    pub(crate) fn path(kind: &str, day: Day, generation: u32) -> String {
        format!("{FOLDER}/kind={kind}/date={day}/{generation:03}.json")
    }

    /// Writes it.
    pub(crate) async fn save(&self, store: &Store) -> Result<()> {
        let path = store.at(&Manifest::path(&self.kind, self.day, self.generation));
        let body = serde_json::to_vec_pretty(self)?;
        store
            .objects
            .put(&path, PutPayload::from(body))
            .await
            .with_context(|| format!("cannot write {path}"))?;
        Ok(())
    }

    /// Reads the one at `path`, and refuses one that does not say what its place says.
    async fn load(store: &Store, path: &Path) -> Result<Manifest> {
        let body = store.objects.get(path).await.with_context(|| format!("cannot read {path}"))?;
        let body = body.bytes().await.with_context(|| format!("cannot read {path}"))?;
        let manifest: Manifest = serde_json::from_slice(&body)
            .with_context(|| format!("{path} is no manifest: it was changed, or cut off"))?;
        ensure!(manifest.version == VERSION, "{path}: version {} is unknown", manifest.version);
        let place = store.at(&Manifest::path(&manifest.kind, manifest.day, manifest.generation));
        ensure!(*path == place, "{path} speaks of {place}: it was moved or changed");
        let mut sum = RowSum::default();
        manifest.files.iter().for_each(|file| sum.add(file.sum));
        ensure!(
            sum == manifest.sum,
            "{path}: the rows of its files do not add up to the day's: it was changed"
        );
        Ok(manifest)
    }

    /// Those of a day, oldest first: more than one only where an archive of the day was interrupted.
    pub(crate) async fn of_day(store: &Store, kind: &str, day: Day) -> Result<Vec<Manifest>> {
        let folder = store.at(&format!("{FOLDER}/kind={kind}/date={day}"));
        Manifest::below(store, &folder).await
    }

    /// Removes it, and then its objects.
    pub(crate) async fn delete(&self, store: &Store) -> Result<()> {
        let manifest = Manifest::path(&self.kind, self.day, self.generation);
        for path in std::iter::once(&manifest).chain(self.files.iter().map(|file| &file.path)) {
            match store.objects.delete(&store.at(path)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error).with_context(|| format!("cannot remove {path}")),
            }
        }
        Ok(())
    }

    /// All of a kind, or of every kind, by kind, day and generation.
    pub(crate) async fn all(store: &Store, kind: Option<&str>) -> Result<Vec<Manifest>> {
        let folder = match kind {
            Some(kind) => store.at(&format!("{FOLDER}/kind={kind}")),
            None => store.at(FOLDER),
        };
        Manifest::below(store, &folder).await
    }

    async fn below(store: &Store, folder: &Path) -> Result<Vec<Manifest>> {
        let objects: Vec<_> = store
            .objects
            .list(Some(folder))
            .try_collect()
            .await
            .with_context(|| format!("cannot list {folder}"))?;
        let mut sorted = BTreeMap::new();
        for object in objects {
            let manifest = Manifest::load(store, &object.location).await?;
            sorted.insert((manifest.kind.clone(), manifest.day, manifest.generation), manifest);
        }
        Ok(sorted.into_values().collect())
    }
}
