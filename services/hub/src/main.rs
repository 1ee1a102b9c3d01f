//! The `hub` command.

use std::process::ExitCode;

use clap::Parser;
use hubspoke::cli::{HubCli, run};

fn main() -> ExitCode {
    run(HubCli::parse())
}
