//! `healthcheck`: asks the process that runs, not the one that this configuration would start. The process may have
//! been started with other arguments (`--config`), or on port 0.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hubspoke_client::{HttpClient, HttpOptions};
use hubspoke_protocol::problem::{ProblemDocument, ProblemType};
use reqwest::StatusCode;

use super::running::{self, RunningProcess};
use crate::config::IdentitySettings;
use crate::health::READYZ_PATH;

/// Shorter than the 3 s that the images' HEALTHCHECK allows.
const TIMEOUT: Duration = Duration::from_millis(2500);

type BoxError = Box<dyn Error + Send + Sync>;

/// The process to ask.
#[derive(Debug, Clone, Copy)]
pub enum HealthQuery {
    /// A process that runs one service, with its control routes at this address, according to the configuration.
    Service(SocketAddr),
    /// A process that runs several services, all of which must be ready. Its gateway's public port is not asked.
    Platform {
        /// An address of the process, according to the configuration.
        listen: SocketAddr,
        /// The public port of its gateway.
        public: SocketAddr,
    },
}

/// The answer of a port.
enum Answer {
    Ready,
    NotReady(String),
    /// It does not serve control routes.
    Other(String),
}

/// Asks the processes of this program that run here for `/readyz`: the one that listens at the configured address or,
/// if none does, all of them. If none can be seen, asks the configured address.
///
/// # Errors
/// If one of them is not ready; names its address, and the reason.
pub(super) async fn healthcheck(query: HealthQuery, tls: &IdentitySettings) -> Result<(), BoxError> {
    // The process has the same files, and so the same names.
    let identity = tls.open()?;
    let names = identity.as_ref().map(|identity| identity.names()).unwrap_or_default();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let client = HttpClient::new(&names, identity.as_ref(), HttpOptions::new(TIMEOUT))?;
    let configured = match query {
        HealthQuery::Service(control) => control,
        HealthQuery::Platform { listen, .. } => listen,
    };
    let mut processes = running::processes();
    let is_configured =
        |process: &RunningProcess| process.listens.iter().any(|addr| is_same(*addr, configured));
    if processes.iter().any(is_configured) {
        processes.retain(is_configured);
    }
    if processes.is_empty() {
        processes.push(RunningProcess { id: 0, listens: vec![configured] });
    }
    for process in processes {
        check(&client, query, process).await?;
    }
    Ok(())
}

async fn check(client: &HttpClient, query: HealthQuery, process: RunningProcess) -> Result<(), BoxError> {
    let RunningProcess { id, mut listens } = process;
    match query {
        // The configured address first: no other port gets a request if that one answers.
        HealthQuery::Service(control) => listens.sort_by_key(|addr| !is_same(*addr, control)),
        HealthQuery::Platform { public, .. } => listens.retain(|addr| *addr != public),
    }
    let (mut is_ready, mut others) = (false, Vec::new());
    for addr in listens {
        match ask(client, addr).await {
            Answer::NotReady(why) => return Err(format!("{addr}: {why}").into()),
            Answer::Ready if matches!(query, HealthQuery::Service(_)) => return Ok(()),
            Answer::Ready => is_ready = true,
            Answer::Other(why) => others.push(format!("{addr}: {why}")),
        }
    }
    if is_ready {
        return Ok(());
    }
    let process = if id == 0 { String::new() } else { format!("process {id}: ") };
    Err(format!("{process}{}", others.join("; ")).into())
}

/// Whether a socket is the one that is configured: `[::]` may be bound as `0.0.0.0`.
fn is_same(bound: SocketAddr, configured: SocketAddr) -> bool {
    let are_wildcards = bound.ip().is_unspecified() && configured.ip().is_unspecified();
    bound.port() == configured.port() && (bound.ip() == configured.ip() || are_wildcards)
}

async fn ask(client: &HttpClient, addr: SocketAddr) -> Answer {
    let get = async |addr| {
        let url = format!("{}://{addr}{READYZ_PATH}", client.scheme());
        client.send(client.get(url).timeout(TIMEOUT)).await
    };
    let response = match get(reachable(addr)).await {
        // Loopback may have only the other family.
        Err(error) if error.is_connect() && addr.is_ipv6() && addr.ip().is_unspecified() => {
            get(SocketAddr::from((Ipv6Addr::LOCALHOST, addr.port()))).await
        }
        response => response,
    };
    let response = match response {
        Ok(response) => response,
        Err(error) => return Answer::Other(hubspoke_client::with_causes(&error)),
    };
    let status = response.status();
    let body = response.text().await.unwrap_or_default();
    let problem = serde_json::from_str::<ProblemDocument>(&body).ok();
    match problem {
        _ if status.is_success() => Answer::Ready,
        Some(problem)
            if status == StatusCode::SERVICE_UNAVAILABLE
                && problem.problem_type == ProblemType::NotReady.urn() =>
        {
            Answer::NotReady(problem.detail)
        }
        _ => Answer::Other(format!("{status}: {}", body.trim())),
    }
}

/// The address at which this machine reaches a socket bound to `addr`: loopback for a wildcard. `[::]` takes IPv4 too,
/// and a container may have no IPv6 loopback.
pub fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = if addr.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { addr.ip() };
    SocketAddr::new(ip, addr.port())
}
