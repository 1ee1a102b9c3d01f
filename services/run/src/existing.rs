//! `hub add`: something that runs already, checked and kept registered while this command lives.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hubspoke_protocol::ServiceInfo;
use rand::RngExt as _;
use tokio::net::lookup_host;
use tokio::time::sleep;

use crate::check::{Check, Health, next_change};
use crate::member::{JoinError, Registration};
use crate::platform::Platform;
use crate::terminal::Terminal;

/// How often it is asked before it answers for the first time.
const POLL: Duration = Duration::from_millis(200);

/// A program that runs already.
#[derive(Debug, Clone)]
pub struct Existing {
    /// The service's name.
    pub name: String,
    /// `host:port`, under which it is registered.
    pub addr: String,
    /// The path of its check; a connection if unset.
    pub path: Option<String>,
    /// Whether the gateway removes the name from the path.
    pub strip: bool,
    /// Further hosts by which the gateway routes to it.
    pub hosts: Vec<String>,
}

/// Why it can't be added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The address can't be resolved.
    #[error("{0} has no address")]
    Resolve(String, #[source] io::Error),
    /// There is no address for our control port.
    #[error("can't tell which address of this machine the registry can reach")]
    Local(#[source] io::Error),
    /// It can't be a member.
    #[error("can't be registered")]
    Join(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<JoinError> for AddError {
    fn from(error: JoinError) -> Self {
        Self::Join(error.into())
    }
}

/// Registers it when it answers, and deregisters it at `stop`.
///
/// # Errors
/// [`AddError`].
pub async fn add(
    existing: Existing,
    platform: &Platform,
    terminal: &Terminal,
    stop: impl Future<Output = ()>,
) -> Result<(), AddError> {
    let Existing { name, addr, path, strip, hosts } = existing;
    let resolve = |error| AddError::Resolve(addr.clone(), error);
    let found = lookup_host(&addr).await.map_err(resolve)?.next();
    let target: SocketAddr = found.ok_or_else(|| resolve(io::ErrorKind::NotFound.into()))?;
    let check = match path {
        Some(path) => Check::Url(format!("http://{addr}{path}")),
        None => Check::Tcp(target),
    };
    // It may run on another machine; our control port is here.
    let host = platform.host_addrs(None).await.map_err(AddError::Local)?;
    let mut info = ServiceInfo::new(&name, &addr);
    info.id = Some(format!("{name}-{:016x}", rand::rng().random::<u64>()));
    if strip {
        info.meta.insert("route.strip".to_owned(), "true".to_owned());
    }
    if !hosts.is_empty() {
        info.meta.insert("route.hosts".to_owned(), hosts.join(","));
    }
    let http = platform.http();
    tokio::pin!(stop);
    let first = async {
        let mut reported = false;
        while let Err(why) = check.ask(http).await {
            if !std::mem::replace(&mut reported, true) {
                terminal.remark(&format!("{name} at {addr} does not answer yet: {why}")).await;
            }
            sleep(POLL).await;
        }
    };
    tokio::select! {
        () = first => {}
        () = &mut stop => return Ok(()),
    }
    let health = Health::default();
    let registration = Registration::start(platform, &host, info, health.clone()).await?;
    let mut joined = registration.joined();
    let kept = async {
        if joined.wait_for(|joined| *joined).await.is_ok() {
            let at = platform.gateway().map_or_else(|| addr.clone(), |gateway| format!("{gateway}/{name}/"));
            terminal.remark(&format!("{name} is reachable at {at} (listens on {addr})")).await;
        }
        loop {
            let text = match next_change(&check, http, &health).await {
                Ok(()) => format!("{name} at {addr} answers again"),
                Err(why) => format!("{name} at {addr} does not answer its check: {why}"),
            };
            terminal.remark(&text).await;
        }
    };
    tokio::select! {
        () = kept => {} // never
        () = stop => {}
    }
    registration.leave(None).await;
    Ok(())
}
