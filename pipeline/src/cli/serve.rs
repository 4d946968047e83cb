//! Commands that serve something.

use anyhow::Result;
use clap::Args;

use super::host::stopped_by_signal;
use crate::config::Config;
use crate::registry::{self, RegistryOptions};

/// How to serve the registry.
#[derive(Debug, Args)]
pub struct RegistryArgs {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:8081")]
    pub listen: String,
    /// Topic that keeps the schemas.
    #[arg(long, default_value = "_schemas")]
    pub topic: String,
}

/// Serves the registry until a signal.
pub(super) async fn registry(config: Config, args: RegistryArgs) -> Result<()> {
    let shutdown = stopped_by_signal()?;
    let options = RegistryOptions {
        brokers: config.kafka.brokers,
        properties: config.kafka.properties,
        listen: args.listen,
        topic: args.topic,
        replication: config.kafka.replication,
    };
    registry::serve(options, shutdown).await
}
