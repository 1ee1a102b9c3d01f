//! The `visit` binary: wiring only.

use std::process::ExitCode;

use hubspoke_visit::{PROCESS, VisitServer};

fn main() -> ExitCode {
    hubspoke_chassis::boot(&PROCESS, |config, shutdown| async move {
        VisitServer::bind(config).await?.run(shutdown).await
    })
}
