//! The `log` binary: wiring only.

use std::process::ExitCode;

use hubspoke_log::{LogServer, PROCESS};

fn main() -> ExitCode {
    hubspoke_chassis::boot(&PROCESS, |config, shutdown| async move {
        LogServer::bind(config).await?.run(shutdown).await
    })
}
