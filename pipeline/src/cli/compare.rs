//! `tapeline compare`: do two databases hold the same rows?

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::code;
use crate::compare::{self, Scope};
use crate::config::Config;

/// What to compare.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The database that has what should be there: `postgres://…`, or `-` for `database.url`. A
    /// password is better kept in PGPASSFILE than in an argument, which others can read.
    pub a: String,
    /// The database that is compared with it.
    pub b: String,
    /// Only these tables, or the tables of these kinds.
    #[arg(long = "table", value_name = "NAME", value_delimiter = ',')]
    pub tables: Vec<String>,
    /// Rows of event times from this on: `2021-04-17`, `2021-04-17T15:00:00Z`.
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Rows of event times before this.
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Compares. An error means that it could not be carried out.
pub(super) async fn run(config: &Config, args: CompareArgs) -> Result<ExitCode> {
    let CompareArgs { a, b, tables, from, to, json } = args;
    let address = |given: String| match given.as_str() {
        "-" => config.database.url.clone(),
        _ => given,
    };
    let comparison =
        compare::compare(&address(a), &address(b), &Scope { tables, from, to }).await?;
    match json {
        true => println!("{}", serde_json::to_string(&comparison)?),
        false => println!("{comparison}"),
    }
    Ok(code(comparison.ok))
}
