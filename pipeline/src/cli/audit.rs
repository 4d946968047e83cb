//! `tapeline audit`: is everything that entered, exactly once, where it should be? And the ledger
//! that it rests on.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::code;
use crate::audit::{self, Scope};
use crate::config::Config;

/// What to audit.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Judge rows and candles from the UTC day of this event time on: `2021-04-17`.
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Judge rows and candles of event times before this, whole UTC days.
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// Judge only these topics or kinds: `md.trade`, `md.trade.raw` and `trade` mean the same.
    #[arg(long = "topic", value_name = "NAME", value_delimiter = ',')]
    pub topics: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Audits once. An error means that it could not be carried out.
pub(super) async fn run(config: &Config, args: AuditArgs) -> Result<ExitCode> {
    let scope = Scope { from: args.from, to: args.to, topics: args.topics };
    let report = audit::run(config, &scope).await?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        report.print();
    }
    Ok(code(report.ok))
}

/// What to do with the ledger.
#[derive(Debug, Subcommand)]
pub enum LedgerAction {
    /// Fold old rows into one a partition and day; what the audit proves stays the same.
    Fold {
        /// Rows written longer ago than this: `90m`, `36h`, `7d`.
        #[arg(long, value_name = "AGE", default_value = "7d", value_parser = age)]
        older_than: Duration,
    },
}

/// Does it.
pub(super) async fn ledger(config: &Config, action: &LedgerAction) -> Result<()> {
    let LedgerAction::Fold { older_than } = action;
    let folded = audit::fold(&config.database.url, &config.pipeline.id, *older_than).await?;
    println!("{} rows of the ledger folded into {}", folded.rows, folded.into);
    Ok(())
}

fn age(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no age such as 90m, 36h or 7d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u32 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}
