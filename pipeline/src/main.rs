//! The binary `tapeline`: one subcommand a stage.

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    match tapeline::cli::run(tapeline::cli::Cli::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tapeline: {error:#}");
            ExitCode::FAILURE
        }
    }
}
