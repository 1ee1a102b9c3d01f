//! The gateway's binary.

use std::process::ExitCode;

use hubspoke_gateway::{GatewayConfig, PROCESS, Server};

fn main() -> ExitCode {
    hubspoke_chassis::boot(&PROCESS, |config: hubspoke_chassis::Config<GatewayConfig>, shutdown| async move {
        Server::bind(config).await?.run(shutdown).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    })
}
