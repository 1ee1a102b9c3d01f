//! The gateway's binary.

use std::process::ExitCode;

use hubspoke_gateway::{GatewayConfig, GatewayServer, PROCESS};

fn main() -> ExitCode {
    hubspoke_chassis::boot(&PROCESS, |config: hubspoke_chassis::Config<GatewayConfig>, shutdown| async move {
        GatewayServer::bind(config).await?.run(shutdown).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    })
}
