//! Which service has a host that members ask for. A gateway distributes hosts by the same rule; here it is for the
//! answers to registrations and for people.
//!
//! The first that asks for a host has it for as long as it asks, also while its only instance is replaced. Since when a
//! service asks is part of each of its registrations, so it outlives restarts of the registry and of gateways, and
//! registries that share a store agree about it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hubspoke_protocol::{
    GatewayHosts, HOSTS_KEPT_FOR, HostRefused, META_GATEWAY_HOSTS, ServiceInfo, below_domain,
};

use super::host_index::HostAsk;
use super::state::Catalog;
use super::time::Time;

/// The name under which gateways register. With tokens in use, nobody else gets it.
const GATEWAY: &str = "gateway";
/// Below it, each service has a host at every gateway.
const LOCALHOST: &str = "localhost";
/// Longest part of a host that a warning repeats, in characters.
const MAX_SHOWN: usize = 100;

/// The hosts that gateways keep or give away.
pub(crate) struct GatewaysHosts(Vec<GatewayHosts>);

impl Catalog {
    /// Since when the service of an instance asks for its hosts, if it registers now. `wall`: milliseconds since 1970.
    pub(crate) fn hosts_since(&self, info: &ServiceInfo, now: Time, wall: u64) -> BTreeMap<String, u64> {
        let since = |host: &str| {
            let own = |ask: &&HostAsk| *ask.1.name == *info.name;
            let asked = self.hosts.asks(host).find(own).map(|(since, _)| *since);
            asked.or_else(|| self.asked_lately(&info.name, host, now)).unwrap_or(wall)
        };
        info.asked_hosts().map(|host| (host.to_string(), since(&host))).collect()
    }

    /// Since when a service that is being replaced asked for a host.
    fn asked_lately(&self, service: &str, host: &str, now: Time) -> Option<u64> {
        let removed = self.services.get(service)?.removed.values().filter_map(|at| self.removed.get(at));
        let lately = removed.filter(|removed| now.since(removed.at) < Duration::from_secs(HOSTS_KEPT_FOR));
        lately.filter_map(|removed| removed.instance.info.hosts_since.get(host)).min().copied()
    }

    /// The hosts that gateways keep or give away.
    pub(crate) fn gateways_hosts(&self) -> GatewaysHosts {
        let gateways = self.services.get(GATEWAY).into_iter().flat_map(|service| service.instances.values());
        let texts = gateways.filter_map(|instance| instance.info.meta.get(META_GATEWAY_HOSTS));
        // That much is true of every gateway, known or not.
        let any = GatewayHosts { domains: [LOCALHOST.to_owned()].into(), ..GatewayHosts::default() };
        let known = texts.collect::<BTreeSet<_>>().into_iter().map(|text| GatewayHosts::from(&**text));
        GatewaysHosts(std::iter::once(any).chain(known).collect())
    }

    /// Hosts that an instance asks for in vain, for people.
    pub(crate) fn host_warnings(&self, info: &ServiceInfo, gateways: &GatewaysHosts) -> Vec<String> {
        let refused = |host: &String| {
            let refused = gateways.check(host, &info.name).err().or_else(|| {
                let mut asks = self.hosts.asks(host).map(|(_, key)| &*key.name);
                let holder = asks.find(|name| gateways.check(host, name).is_ok())?;
                (holder != info.name).then(|| HostRefused::Taken(holder.to_owned()))
            });
            refused.map(|reason| warning(host, &reason))
        };
        info.hosts_since.keys().filter_map(refused).collect()
    }
}

impl GatewaysHosts {
    /// Whether a service has a host by its name.
    pub(crate) fn is_own(&self, host: &str, service: &str) -> bool {
        let mut domains = self.0.iter().flat_map(|gateway| &gateway.domains);
        domains.any(|domain| below_domain(host, domain) == Some(service))
    }

    /// Whether all gateways let members of a service have a host.
    fn check(&self, host: &str, service: &str) -> Result<(), HostRefused> {
        self.0.iter().try_for_each(|gateway| gateway.check(host, service))
    }
}

/// In visible ASCII characters, so that it may stand in a header and on a terminal.
fn warning(host: &str, reason: &HostRefused) -> String {
    let shown: String = host.escape_default().take(MAX_SHOWN).collect();
    format!("host {shown}: {reason}")
}

/// Adds to what is odd about a registration.
pub(super) fn add(warnings: &mut Option<Arc<[String]>>, more: Vec<String>) {
    if !more.is_empty() {
        *warnings = Some(warnings.as_deref().unwrap_or_default().iter().cloned().chain(more).collect());
    }
}
