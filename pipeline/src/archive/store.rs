//! Where the archive is: S3, GCS, Azure or a folder.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, WriteMultipart, parse_url_opts};
use url::Url;

use crate::config::ArchiveConfig;

/// Pieces an object is uploaded in, and how many at a time.
const PIECE_BYTES: usize = 8 * 1024 * 1024;
const PIECES_AT_ONCE: usize = 4;

/// An object store and the folder in it.
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) objects: Arc<dyn ObjectStore>,
    root: Path,
    url: Url,
}

impl Store {
    /// Opens the configured one; does not yet ask it anything.
    pub fn open(config: &ArchiveConfig) -> Result<Store> {
        let Some(url) = &config.url else {
            bail!(
                "archive.url is not set: expected s3://bucket/folder, gs://…, az://… or file:///folder"
            );
        };
        let url = Url::parse(url).context("archive.url is no URL")?;
        if url.scheme() == "file" {
            return Store::folder(url);
        }
        let (objects, root) = parse_url_opts(&url, options(config, url.scheme()))
            .map_err(|error| anyhow::anyhow!("archive.url or archive.properties: {error}"))?;
        Ok(Store { objects: Arc::from(objects), root, url })
    }

    fn folder(url: Url) -> Result<Store> {
        let Ok(folder) = url.to_file_path() else {
            bail!("archive.url: expected file:///an/absolute/folder");
        };
        ensure!(folder.is_dir(), "archive.url: {} is no folder: make it first", folder.display());
        // what is written is on the disk before it counts
        let objects =
            object_store::local::LocalFileSystem::new_with_prefix(&folder)?.with_fsync(true);
        Ok(Store { objects: Arc::new(objects), root: Path::default(), url })
    }

    /// The path of an object below the root.
    pub(super) fn at(&self, path: &str) -> Path {
        let joined = format!("{}/{path}", self.root);
        Path::from(joined.trim_start_matches('/'))
    }

    /// The URL without what may be secret, for people.
    pub fn shown(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        // Only URLs that cannot have a password refuse this.
        let _ = url.set_password(None);
        url.to_string()
    }

    /// The bucket and the scheme, for what only some stores know.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Writes an object: in pieces where it is large; each is repeated where the store falters.
    /// It is there wholly or not at all.
    pub(super) async fn put(&self, path: &str, body: Bytes) -> Result<()> {
        let place = self.at(path);
        let written = async {
            if body.len() <= PIECE_BYTES {
                self.objects.put(&place, body.into()).await?;
                return Ok::<(), object_store::Error>(());
            }
            let upload = self.objects.put_multipart(&place).await?;
            let mut writer = WriteMultipart::new_with_chunk_size(upload, PIECE_BYTES);
            let mut at = 0;
            while at < body.len() {
                writer.wait_for_capacity(PIECES_AT_ONCE).await?;
                let end = (at + PIECE_BYTES).min(body.len());
                writer.put(body.slice(at..end));
                at = end;
            }
            writer.finish().await.map(drop)
        };
        written.await.with_context(|| format!("cannot write {place} in {}", self.shown()))
    }

    /// Reads a whole object.
    pub(super) async fn get(&self, path: &str) -> Result<Bytes> {
        let place = self.at(path);
        let read = async { self.objects.get(&place).await?.bytes().await };
        read.await.with_context(|| format!("cannot read {place} in {}", self.shown()))
    }
}

/// The settings of the cloud's store: the environment's under the configuration's.
pub(super) fn options(config: &ArchiveConfig, scheme: &str) -> BTreeMap<String, String> {
    let mut options = environment(scheme);
    options.extend(config.properties.iter().map(|(key, value)| (key.clone(), value.clone())));
    options
}

/// What the environment says about a cloud's store, in the cloud's own names (`AWS_*`) and in the
/// documents' (`S3_ENDPOINT`, `S3_REGION`, `S3_ACCESS_KEY`, `S3_SECRET_KEY`).
fn environment(scheme: &str) -> BTreeMap<String, String> {
    let prefixes: &[&str] = match scheme {
        "s3" | "s3a" => &["AWS_"],
        "gs" => &["GOOGLE_"],
        _ => &["AZURE_"],
    };
    let ours = [
        ("S3_ENDPOINT", "aws_endpoint"),
        ("S3_REGION", "aws_region"),
        ("S3_ACCESS_KEY", "aws_access_key_id"),
        ("S3_SECRET_KEY", "aws_secret_access_key"),
    ];
    let mut options = BTreeMap::new();
    for (name, value) in std::env::vars() {
        if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
            options.insert(name.to_ascii_lowercase(), value);
        } else if let Some((_, option)) = ours.iter().find(|(ours, _)| *ours == name)
            && prefixes[0] == "AWS_"
        {
            options.insert((*option).to_owned(), value);
        }
    }
    options
}
