//! Settings of the archive and of the lifecycle.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::text;

/// The archive.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ArchiveConfig {
    /// Where it is: `s3://bucket/folder`, `gs://…`, `az://…`, or `file:///folder`.
    #[serde(deserialize_with = "text::optional")]
    pub url: Option<String>,
    /// Settings of the store, by the names of the `object_store` crate: `aws_endpoint`,
    /// `aws_region`, `aws_access_key_id`, `aws_server_side_encryption`, … `AWS_*`, `GOOGLE_*`,
    /// `AZURE_*` and `S3_*` of the environment come under them.
    #[serde(deserialize_with = "text::map")]
    pub properties: BTreeMap<String, String>,
}

/// When what is old goes where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LifecycleConfig {
    /// Of every kind that has none of its own.
    pub periods: Periods,
    /// Of single kinds (`trade`, `ticker`, `book`, `candle`, `anomaly`, `option`, `flow`,
    /// `prediction`, `portfolio`).
    pub kinds: BTreeMap<String, Periods>,
    /// How long restored days stay in their table.
    pub keep_restored_days: u32,
    /// When `tapeline lifecycle schedule` runs it, as cron writes it, in UTC.
    pub schedule: String,
}

impl Default for LifecycleConfig {
    fn default() -> LifecycleConfig {
        LifecycleConfig {
            periods: Periods::default(),
            kinds: BTreeMap::new(),
            keep_restored_days: 7,
            schedule: "30 1 * * *".into(),
        }
    }
}

impl LifecycleConfig {
    /// The periods of a kind.
    pub fn periods(&self, kind: &str) -> &Periods {
        self.kinds.get(kind).unwrap_or(&self.periods)
    }
}

/// Ages at which a chunk, counted from its end, is treated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Periods {
    /// Its indexes are built anew then: rows hardly come any more.
    pub compact_after_days: u32,
    /// Hot until then, compressed from then on (Community edition).
    pub compress_after_days: u32,
    /// Archived from then on.
    pub archive_after_days: u32,
    /// Only in the archive from then on.
    pub drop_after_days: u32,
}

impl Default for Periods {
    fn default() -> Periods {
        Periods {
            compact_after_days: 1,
            compress_after_days: 7,
            archive_after_days: 180,
            drop_after_days: 180,
        }
    }
}
