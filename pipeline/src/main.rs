//! The binary `tapeline`: one subcommand a stage.

use std::process::ExitCode;

fn main() -> ExitCode {
    tapeline::cli::main()
}
