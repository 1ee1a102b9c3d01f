//! The `visit` binary: wiring only.

use std::process::ExitCode;

use hubspoke_visit::{PROCESS, Server};

fn main() -> ExitCode {
    hubspoke_chassis::boot(&PROCESS, |config, shutdown| async move {
        Server::bind(config).await?.run(shutdown).await
    })
}
