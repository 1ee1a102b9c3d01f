//! A service of your own: answers `/greeter/NAME` and logs each greeting.

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use hubspoke_chassis::{LogClient, Problem, Service};

async fn greet(Path(name): Path<String>, State(log): State<LogClient>) -> Result<String, Problem> {
    log.send(format!("greeted {name}")).await?;
    Ok(format!("hello, {name}\n"))
}

fn main() -> std::process::ExitCode {
    Service::builder("greeter")
        .version("0.1.0")
        .requires(["log"])
        .boot(|service| Router::new().route("/greeter/{name}", get(greet)).with_state(service.log()))
}
