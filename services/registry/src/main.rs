//! The registry's binary.

use std::process::ExitCode;

use hubspoke_chassis::Config;
use hubspoke_registry::{PROCESS, RegistryServer, Settings};

fn main() -> ExitCode {
    hubspoke_chassis::boot(&PROCESS, |config: Config<Settings>, shutdown| async move {
        RegistryServer::bind(config).await?.run(shutdown).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    })
}
