//! The `log` binary: wiring only.

use std::process::ExitCode;

use hub_log::{PROCESS, Server};

fn main() -> ExitCode {
    hub_chassis::boot(
        &PROCESS,
        |config, shutdown| async move { Server::bind(config).await?.run(shutdown).await },
    )
}
