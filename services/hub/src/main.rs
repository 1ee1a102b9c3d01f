//! The `hub` command: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    hub::cli::run(hub::cli::Cli::parse())
}
