use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::host::name_of;
use crate::config::Common;

/// A Kubernetes cluster's own names: no other DNS server gives them out.
const CLUSTER_SUFFIXES: [&str; 2] = [".svc", ".svc.cluster.local"];
/// How containers call the machine that runs them (Docker, Podman).
const CONTAINER_HOSTS: [&str; 2] = ["host.docker.internal", "host.containers.internal"];

/// The names that a service answers to: IP addresses, `localhost`, its own names, and those in `allowed_hosts`. A web
/// page can be reached by neither of them unless it is the service's own. Clones share the names.
#[derive(Debug, Clone)]
pub struct KnownHosts(Arc<Names>);

#[derive(Debug, Default)]
struct Names {
    any: bool,
    exact: BTreeSet<String>,
    /// With their leading dot.
    suffixes: Vec<String>,
}

impl KnownHosts {
    /// The names of a service: its registered name, which Compose and Kubernetes give it in DNS, too; the machine's (in
    /// a container, its id; in a pod, its name); those in its settings.
    pub fn new(common: &Common) -> Self {
        let machine = rustix::system::uname();
        let machine = machine.nodename().to_string_lossy();
        let short = machine.split('.').next().unwrap_or_default();
        let registries = common.registry.url.split(',').filter_map(|url| url.split("://").nth(1));
        let settings = [common.advertise.as_deref(), common.advertise_host.as_deref()];
        let settings = settings
            .into_iter()
            .flatten()
            .chain(registries)
            .map(str::trim)
            .filter_map(|host| name_of(host.trim_end_matches('/')));
        Self::of([&common.name, &*machine, short].into_iter().chain(settings), &common.allowed_hosts)
    }

    fn of<'a>(own: impl IntoIterator<Item = &'a str>, allowed: &[String]) -> Self {
        let mut names = Names { exact: own.into_iter().map(normal).collect(), ..Names::default() };
        for host in allowed {
            match host.strip_prefix('*') {
                Some("") => names.any = true,
                Some(suffix) => names.suffixes.push(normal(suffix)),
                None => drop(names.exact.insert(normal(host.trim_matches(['[', ']'])))),
            }
        }
        Self(Arc::new(names))
    }

    /// Whether a host, with or without a port, is the service.
    ///
    /// ```
    /// # use hubspoke_chassis::{config::Common, site::KnownHosts, Process};
    /// # let mut common = Common::of(&Process::new("greeter", "0")).unwrap();
    /// common.allowed_hosts = vec!["hello.example".to_owned(), "*.lan".to_owned()];
    /// let known = KnownHosts::new(&common);
    /// for host in ["10.0.0.7:8000", "[::1]:8000", "localhost", "greeter:8000", "hello.example", "a.lan"] {
    ///     assert!(known.contains(host), "{host}");
    /// }
    /// assert!(!known.contains("evil.example:8000"));
    /// ```
    pub fn contains(&self, host: &str) -> bool {
        let Some(name) = name_of(host) else { return false };
        if self.0.any || name.parse::<IpAddr>().is_ok() {
            return true;
        }
        let name = normal(name);
        name == "localhost"
            || name.ends_with(".localhost")
            || CONTAINER_HOSTS.contains(&&*name)
            || CLUSTER_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
            || self.0.exact.contains(&name)
            || self.0.suffixes.iter().any(|suffix| name.ends_with(suffix.as_str()))
    }
}

/// Names are compared without case and without the dot at the end of a full name.
fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}
