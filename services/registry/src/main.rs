//! The registry's process: wiring only.

use std::process::ExitCode;

use hubspoke_chassis::{BindError, Config, RunError};
use hubspoke_registry::{PROCESS, Server, Settings};

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Run(#[from] RunError),
}

fn main() -> ExitCode {
    hubspoke_chassis::boot(&PROCESS, |config: Config<Settings>, shutdown| async move {
        Ok::<_, Error>(Server::bind(config).await?.run(shutdown).await?)
    })
}
