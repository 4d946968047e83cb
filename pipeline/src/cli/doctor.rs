//! `tapeline doctor`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::config::Config;
use crate::doctor::{self, Limits, Machine, Scope};

/// How to examine.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Carry out the advice that is safe: settings that take effect at once, can be taken back and
    /// put no data at risk.
    #[arg(long)]
    apply: bool,
    /// Memory of the database's machine in GiB, where it is not this one.
    #[arg(long, value_name = "GIB", requires = "cores", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    memory_gib: Option<u32>,
    /// Its cores.
    #[arg(long, value_name = "CORES", requires = "memory_gib", value_parser = clap::value_parser!(u32).range(1..=4_096))]
    cores: Option<u32>,
    /// PgBouncer, `postgres://user:password@host:port/…`: for its pools, as a user of its console.
    #[arg(long, value_name = "URL", env = "TAPELINE_PGBOUNCER_URL", hide_env_values = true)]
    pgbouncer: Option<String>,
    /// Hours of prices to judge, back from the newest candle; 0 judges none.
    #[arg(long, value_name = "HOURS", default_value_t = 24)]
    history: u32,
}

/// Examines once. The exit code says how bad it is; 2 also where nothing could be examined.
pub(super) async fn run(config: &Config, args: DoctorArgs) -> Result<ExitCode> {
    let machine = args
        .memory_gib
        .zip(args.cores)
        .map(|(gib, cores)| Machine { memory: i64::from(gib) << 30, cores: i64::from(cores) });
    let scope = Scope {
        machine,
        pgbouncer: args.pgbouncer,
        history_hours: args.history,
        apply: args.apply,
    };
    let report = doctor::run(config, &scope, &Limits::default()).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print();
    }
    Ok(ExitCode::from(report.exit_code()))
}
