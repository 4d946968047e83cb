//! `tapeline audit`: is everything that entered, exactly once, where it should be?

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

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
