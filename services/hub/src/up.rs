//! `hub up`: registry, gateway, log and visit in one process, each on its own real port, over the same HTTP as
//! anywhere else. Bound in one go, so that a port in use is said before anything runs; stopped from the outside
//! in, so that nobody loses what it still needs.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use hubspoke_chassis::{BindError, boot};
use hubspoke_protocol::{DIRECTORY_PATH, Snapshot};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep};

use crate::config::{HubConfig, PROCESS};

/// How long everything may take to be ready, usually.
pub const READY_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two looks at what is not ready yet.
const READY_POLL: Duration = Duration::from_millis(10);

/// The whole platform, bound and not yet running.
pub struct Hub {
    registry: hubspoke_registry::Server,
    gateway: hubspoke_gateway::Server,
    logs: Vec<hubspoke_log::Server>,
    visits: Vec<hubspoke_visit::Server>,
    addrs: Addrs,
}

/// Where everything listens.
#[derive(Debug, Clone)]
pub struct Addrs {
    /// The registry.
    pub registry: SocketAddr,
    /// The gateway's public port.
    pub gateway: SocketAddr,
    /// The gateway's control port.
    pub gateway_control: SocketAddr,
    /// Each log replica with its file.
    pub logs: Vec<(SocketAddr, PathBuf)>,
    /// Each visit replica.
    pub visits: Vec<SocketAddr>,
}

impl Hub {
    /// Binds everything.
    ///
    /// # Errors
    /// Where a port is in use, a file can't be opened, or the configuration can't be used.
    pub async fn bind(config: &HubConfig) -> anyhow::Result<Self> {
        let registry = hubspoke_registry::Server::bind(config.registry()).await.context("registry")?;
        let at = registry.local_addr();
        let gateway = hubspoke_gateway::Server::bind(config.gateway(at)).await;
        let gateway = gateway
            .map_err(|error| set_by(error, "hub.gateway", "hub.gateway_control"))
            .context("gateway")?;
        let (mut logs, mut log_addrs) = (Vec::new(), Vec::new());
        for n in 1..=config.hub.log_replicas {
            let log = config.log(n, at);
            let file = log.own.file.clone();
            let server = hubspoke_log::Server::bind(log).await.map_err(|error| match error {
                hubspoke_log::ServerError::Bind(error) => set_by(error, "hub.log", "").into(),
                error => anyhow::Error::from(error),
            });
            let server = server.with_context(|| format!("log replica {n}"))?;
            log_addrs.push((server.local_addr(), file));
            logs.push(server);
        }
        let mut visits = Vec::new();
        for n in 1..=config.hub.visit_replicas {
            let visit = config.visit(n, at);
            let server = hubspoke_visit::Server::bind(visit).await.map_err(|error| match error {
                hubspoke_visit::ServerError::Bind(error) => set_by(error, "hub.visit", "").into(),
                error => anyhow::Error::from(error),
            });
            visits.push(server.with_context(|| format!("visit replica {n}"))?);
        }
        let addrs = Addrs {
            registry: at,
            gateway: gateway.local_addr(),
            gateway_control: gateway.control_addr(),
            logs: log_addrs,
            visits: visits.iter().map(hubspoke_visit::Server::local_addr).collect(),
        };
        Ok(Self { registry, gateway, logs, visits, addrs })
    }

    /// Where everything listens.
    pub fn addrs(&self) -> &Addrs {
        &self.addrs
    }

    /// Runs everything until `shutdown` is done, then stops: gateway, visit, log, registry. One that ends badly keeps
    /// none of the others from ending well.
    ///
    /// # Errors
    /// The first of: a service ended before it was asked to, or could not stop as it should.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let mut registry = Tier::default();
        registry.start(|stop| self.registry.run(stop));
        let mut logs = Tier::default();
        for log in self.logs {
            logs.start(|stop| log.run(stop));
        }
        let mut visits = Tier::default();
        for visit in self.visits {
            visits.start(|stop| visit.run(stop));
        }
        let mut gateway = Tier::default();
        gateway.start(|stop| self.gateway.run(stop));
        let mut result = tokio::select! {
            () = shutdown => Ok(()),
            ended = registry.ended() => Err(ended.context("the registry ended")),
            ended = logs.ended() => Err(ended.context("a log replica ended")),
            ended = visits.ended() => Err(ended.context("a visit replica ended")),
            ended = gateway.ended() => Err(ended.context("the gateway ended")),
        };
        for tier in [gateway, visits, logs, registry] {
            let stopped = tier.stop().await;
            result = result.and(stopped);
        }
        result
    }
}

impl Addrs {
    /// Waits until every service says that it is ready, and knows the instances that it calls: the last ones to start
    /// are pushed to the others a moment after, and the first request should find them.
    ///
    /// # Errors
    /// Where one is not after this time: which, and why.
    pub async fn ready(&self, within: Duration) -> anyhow::Result<()> {
        let client = reqwest::Client::builder().no_proxy().timeout(within).build()?;
        let deadline = Instant::now() + within;
        let callers = || self.logs.iter().map(|(addr, _)| *addr).chain(self.visits.iter().copied());
        for addr in [self.registry, self.gateway_control].into_iter().chain(callers()) {
            until(&client, deadline, addr, hubspoke_chassis::health::READYZ_PATH, |_| true).await?;
        }
        let logs = [(hubspoke_log::PROCESS.name, self.logs.len())];
        let all = [logs[0], (hubspoke_visit::PROCESS.name, self.visits.len())];
        for addr in callers() {
            until(&client, deadline, addr, DIRECTORY_PATH, |text| knows(text, &logs)).await?;
        }
        until(&client, deadline, self.gateway_control, DIRECTORY_PATH, |text| knows(text, &all)).await
    }

    /// Where to go, for people.
    pub fn welcome(&self, version: &str) -> String {
        let instances = 2 + self.logs.len() + self.visits.len();
        let mut text = format!("Hubspoke {version} is up: {instances} services in one process.\n\n");
        text += &format!("  registry  http://{}\n", self.registry);
        text += &format!("  gateway   http://{}\n", self.gateway);
        for addr in &self.visits {
            text += &format!("  visit     http://{addr}\n");
        }
        for (addr, file) in &self.logs {
            text += &format!("  log       http://{addr}  → {}\n", file.display());
        }
        // Whoever asks from another shell may not have these settings there.
        let registry = boot::reachable(self.registry).to_string();
        let at =
            if registry == PROCESS.listen { String::new() } else { format!(" --registry http://{registry}") };
        text += &format!(
            "\nTry:   curl {0}/visit\n       curl -d hello {0}/log\n       hub status{at}\nStop:  ctrl-c\n",
            self.gateway
        );
        text
    }
}

/// A failed bind with the keys that set the addresses in `hub up`.
fn set_by(error: BindError, listen: &'static str, control_listen: &'static str) -> BindError {
    match error {
        BindError::Listen { addr, key, source } => {
            let key = if key == "listen" { listen } else { control_listen };
            BindError::Listen { addr, key, source }
        }
        error => error,
    }
}

/// Asks a service until it answers with success and with what is wanted.
async fn until(
    client: &reqwest::Client,
    deadline: Instant,
    addr: SocketAddr,
    path: &str,
    wanted: impl Fn(&str) -> bool,
) -> anyhow::Result<()> {
    let url = format!("http://{addr}{path}");
    loop {
        let why = match client.get(&url).send().await {
            Ok(reply) => {
                let status = reply.status();
                let text = reply.text().await.unwrap_or_default();
                if status.is_success() && wanted(&text) {
                    return Ok(());
                }
                crate::text::problem_detail(text.as_bytes())
            }
            Err(error) => error.to_string(),
        };
        if Instant::now() > deadline {
            return Err(anyhow!("{addr} is not ready: {why}"));
        }
        sleep(READY_POLL).await;
    }
}

/// Whether a member's directory holds so many instances of each of these services.
fn knows(directory: &str, services: &[(&str, usize)]) -> bool {
    let Ok(known) = serde_json::from_str::<Snapshot>(directory) else { return false };
    services.iter().all(|(name, count)| known.services.0.get(*name).is_some_and(|list| list.len() >= *count))
}

/// Servers that start and stop together. Dropped, they end at once.
#[derive(Default)]
struct Tier {
    stop: watch::Sender<bool>,
    servers: JoinSet<anyhow::Result<()>>,
}

/// What a server's `run` takes: done when it is to stop.
type Stop = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Tier {
    fn start<Fut, E>(&mut self, run: impl FnOnce(Stop) -> Fut)
    where
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let mut stop = self.stop.subscribe();
        let stop: Stop = Box::pin(async move { drop(stop.wait_for(|stop| *stop).await) });
        let run = run(stop);
        self.servers.spawn(async { run.await.map_err(anyhow::Error::from) });
    }

    /// Done when a server has ended, which none should before [`Tier::stop`].
    async fn ended(&mut self) -> anyhow::Error {
        match self.servers.join_next().await {
            Some(ended) => flatten(ended).err().unwrap_or_else(|| anyhow!("without being asked to")),
            None => std::future::pending().await,
        }
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        let mut result = Ok(());
        while let Some(ended) = self.servers.join_next().await {
            result = result.and(flatten(ended));
        }
        result
    }
}

fn flatten(ended: Result<anyhow::Result<()>, JoinError>) -> anyhow::Result<()> {
    ended.unwrap_or_else(|error| Err(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_stops_badly_keeps_none_of_the_others_from_stopping() {
        let (stopped, mut others) = tokio::sync::mpsc::unbounded_channel();
        let mut tier = Tier::default();
        tier.start(|stop| async move {
            stop.await;
            Err(std::io::Error::other("the first"))
        });
        for _ in 0..2 {
            let stopped = stopped.clone();
            tier.start(|stop| async move {
                stop.await;
                for _ in 0..1000 {
                    tokio::task::yield_now().await; // much later than the one that fails
                }
                let _ = stopped.send(());
                Ok::<_, std::io::Error>(())
            });
        }
        drop(stopped);
        assert_eq!(tier.stop().await.unwrap_err().to_string(), "the first");
        assert!(others.recv().await.is_some() && others.recv().await.is_some(), "cut off");
    }

    #[test]
    fn the_welcome_names_the_registry_where_the_usual_address_is_not_its() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let mut addrs = Addrs {
            registry: addr("127.0.0.1:20000"),
            gateway: addr("127.0.0.1:20001"),
            gateway_control: addr("127.0.0.1:20011"),
            logs: vec![],
            visits: vec![],
        };
        assert!(addrs.welcome("0").contains("\n       hub status\n"));
        addrs.registry = addr("0.0.0.0:20000");
        assert!(addrs.welcome("0").contains("\n       hub status\n"));
        addrs.registry = addr("127.0.0.1:7000");
        assert!(addrs.welcome("0").contains("\n       hub status --registry http://127.0.0.1:7000\n"));
    }
}
