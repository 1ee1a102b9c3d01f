//! A service of one's own: registers as `greeter`, requires `log`, answers `/greeter/NAME`, logs each greeting.

use std::process::ExitCode;

use axum::extract::{Path, State};
use axum::{Router, http::StatusCode, routing::get};
use hubspoke_chassis::{Config, Problem, Process, Service, boot, config::NoTable};
use hubspoke_client::LogClient;

const PROCESS: Process =
    Process { name: "greeter", listen: "127.0.0.1:0", control_listen: None, version: "0.1.0" };

async fn greet(Path(name): Path<String>, State(log): State<LogClient>) -> Result<String, Problem> {
    log.send(format!("greeted {name}"))
        .await
        .map_err(|error| Problem::from_status(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    Ok(format!("hello, {name}\n"))
}

fn main() -> ExitCode {
    boot(&PROCESS, |config: Config<NoTable>, shutdown| async move {
        let service = Service::bind(&config.common, &["log"]).await?;
        let routes = Router::new().route("/greeter/{name}", get(greet)).with_state(service.log());
        service.run(routes, shutdown).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    })
}
