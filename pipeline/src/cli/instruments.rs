//! `tapeline instruments`: what can be traded where.

use anyhow::{Result, bail};
use clap::Subcommand;

use crate::config::Config;
use crate::database::reader;
use crate::venue::driver;
use crate::venue::{self, Settings};
use crate::{connect, instruments, migrate};

/// What to do with the table of instruments.
#[derive(Debug, Subcommand)]
pub enum InstrumentsAction {
    /// Ask the venues for all they list and keep it.
    Sync {
        /// Which venues; those of the configuration where none is named.
        #[arg(long, value_delimiter = ',')]
        venues: Vec<String>,
    },
    /// Show what is known.
    List {
        /// Of this venue only.
        #[arg(long)]
        venue: Option<String>,
        /// Only those whose symbol or code contains this.
        #[arg(long)]
        like: Option<String>,
        /// A JSON object a line.
        #[arg(long)]
        json: bool,
    },
}

/// Does it.
pub(super) async fn run(config: &Config, action: InstrumentsAction) -> Result<()> {
    match action {
        InstrumentsAction::Sync { venues } => {
            let mut database = migrate::connect(&config.database.url).await?;
            migrate::check(&mut database).await?;
            sync(config, venues).await
        }
        InstrumentsAction::List { venue, like, json } => {
            let mut database = reader(&config.database).await?;
            migrate::check(&mut database).await?;
            let (venue, like) = (venue.as_deref(), like.as_deref());
            for row in instruments::list(&mut database, venue, like).await? {
                if json {
                    println!("{}", serde_json::to_string(&row)?);
                    continue;
                }
                let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
                println!(
                    "{:<9} {:<28} {:<28} {:<9} tick {:<12} lot {:<12} {}",
                    row.exchange,
                    row.symbol,
                    row.code,
                    row.market,
                    or(&row.tick_size),
                    or(&row.lot_size),
                    or(&row.status)
                );
            }
            Ok(())
        }
    }
}

async fn sync(config: &Config, named: Vec<String>) -> Result<()> {
    let configured = &config.connect.venues;
    let names: Vec<String> =
        if named.is_empty() { configured.keys().cloned().collect() } else { named };
    if names.is_empty() {
        bail!(
            "no venue is configured under connect.venues: name some of {} with --venues",
            venue::venue_names()
        );
    }
    for name in names {
        // Without symbols a connector asks for everything.
        let live = connect::reached(config, &name, Settings::new(Vec::new(), Vec::new()))?;
        let table = driver::symbols(&live).await?;
        let changed = instruments::store(&config.database.url, &live.venue, &table).await?;
        println!("{}: {} listed, {changed} new or changed", live.venue, table.len());
    }
    Ok(())
}
