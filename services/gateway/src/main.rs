//! The gateway's process.

use std::process::ExitCode;

use hub_gateway::{GatewayConfig, PROCESS, Server};

fn main() -> ExitCode {
    hub_chassis::boot(&PROCESS, |config: hub_chassis::Config<GatewayConfig>, shutdown| async move {
        Server::bind(config).await?.run(shutdown).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    })
}
