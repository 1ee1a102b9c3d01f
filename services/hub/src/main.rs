//! The `hub` command: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    hubspoke::cli::run(hubspoke::cli::Cli::parse())
}
