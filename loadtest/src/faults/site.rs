//! Where the services are.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use tapeline::registry::{RegistryOptions, RunningRegistry, start};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Services with a registry of the harness's own, and the binary under test.
pub(crate) struct Site {
    pub(crate) brokers: String,
    /// Of a database in which others can be made.
    pub(crate) database: String,
    pub(crate) redis: String,
    pub(crate) template: String,
    pub(crate) registry: String,
    pub(crate) binary: PathBuf,
    /// Files of the cases.
    pub(crate) dir: PathBuf,
    schemas: String,
    stop: CancellationToken,
    running: tokio::sync::Mutex<Option<RunningRegistry>>,
    _guard: DropGuard,
}

/// Addresses of services, as `scripts/services env` says them.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    pub(crate) brokers: String,
    pub(crate) database: String,
    pub(crate) redis: String,
    pub(crate) template: String,
}

impl Addresses {
    /// Those of the environment.
    pub(crate) fn from_environment() -> Result<Addresses> {
        let get = |name: &str| {
            std::env::var(name).with_context(|| {
                format!("{name} is not set: eval \"$(scripts/services env)\", or use `make faults`")
            })
        };
        Ok(Addresses {
            brokers: get("TAPELINE__KAFKA__BROKERS")?,
            database: get("TAPELINE__DATABASE__URL")?,
            redis: get("TAPELINE__REDIS__URL")?,
            template: get("TAPELINE_DB_TEMPLATE")?,
        })
    }
}

/// The binary beside this one: what is tested is what was built with it.
pub(crate) fn binary() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("tapeline");
    ensure!(path.is_file(), "{} is missing: build the whole workspace", path.display());
    Ok(path)
}

impl Site {
    /// Starts a registry on these services. `dir` is where cases keep their files.
    pub(crate) async fn new(addresses: Addresses, name: &str, dir: PathBuf) -> Result<Site> {
        let schemas = format!("_schemas_faults_{name}_{}", std::process::id());
        let stop = CancellationToken::new();
        let options = RegistryOptions {
            brokers: addresses.brokers.clone(),
            listen: "127.0.0.1:0".to_owned(),
            topic: schemas.clone(),
            ..RegistryOptions::default()
        };
        let registry = start(options, stop.clone()).await.context("registry")?;
        Ok(Site {
            brokers: addresses.brokers,
            database: addresses.database,
            redis: addresses.redis,
            template: addresses.template,
            registry: registry.url(),
            binary: binary()?,
            dir,
            schemas,
            _guard: stop.clone().drop_guard(),
            stop,
            running: tokio::sync::Mutex::new(Some(registry)),
        })
    }

    /// Stops the registry and removes its topic.
    pub(crate) async fn finish(&self) -> Result<()> {
        self.stop.cancel();
        if let Some(registry) = self.running.lock().await.take() {
            registry.stopped().await?;
        }
        let admin: AdminClient<DefaultClientContext> =
            rdkafka::ClientConfig::new().set("bootstrap.servers", &self.brokers).create()?;
        admin.delete_topics(&[self.schemas.as_str()], &AdminOptions::new()).await?;
        Ok(())
    }
}
