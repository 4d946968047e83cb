//! The binary `tapeline`: one subcommand a stage.

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = tapeline::cli::Cli::parse();
    let failure = cli.failure_code();
    match tapeline::cli::run(cli).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tapeline: {error:#}");
            failure
        }
    }
}
