//! The services behind the gateway: a [`ServiceTable`] of them, rebuilt from the directory at each change and read
//! without a lock by every request. An [`Instance`] lasts as long as its registration, over any number of tables, so
//! that its connections, its ejection and its counters do too.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use hubspoke_client::directory::View;
use hubspoke_protocol::{EVERY_SERVICE, GatewayHosts, below_domain};
use hubspoke_tls::Identity;

use crate::config::GatewayConfig;
use crate::extras::index::IndexEntry;
use crate::host_name::{lower, name_of};
use crate::route::may_be_public;
use crate::stats::DurationHistogram;

pub(crate) use self::conn::Conn;
pub(crate) use self::h2_conn::{H2Conn, H2Exchange, H2Response};
use self::hosts::HostClaim;
pub(crate) use self::hosts::HostRefusal;
pub(crate) use self::instance::{InFlightGuard, Instance, REMOVAL_CHECK};
pub(crate) use self::service::{Admission, ServiceSettings, UpstreamService, WaitSlot};

mod conn;
pub(crate) mod connect;
mod h2_conn;
mod hosts;
mod instance;
pub(crate) mod pool;
mod service;

/// All public services at one moment.
#[derive(Default)]
pub(crate) struct ServiceTable {
    services: HashMap<Box<str>, Arc<UpstreamService>>,
    /// Services that are not public, and are asked whether requests to others may pass.
    inner: HashMap<Box<str>, Arc<UpstreamService>>,
    /// Hosts that services have beside those below `domains`.
    hosts: HashMap<Box<str>, Arc<UpstreamService>>,
    /// The domains below which each service has a host.
    domains: Vec<Box<str>>,
    /// Hosts that members ask for in vain.
    refused: Vec<HostRefusal>,
    ready: bool,
}

/// Builds tables from views of the directory.
pub(crate) struct TableBuilder<'a> {
    pub(crate) config: &'a GatewayConfig,
    /// The gateway's own registered name, which is never routed to.
    pub(crate) own_name: &'a str,
    /// The hosts that the gateway keeps or gives away.
    pub(crate) hosts: &'a GatewayHosts,
    /// Each has its own pool per instance.
    pub(crate) workers: usize,
    pub(crate) durations: &'a DurationHistogram,
    /// The gateway's identity, if instances speak TLS.
    pub(crate) identity: Option<&'a Arc<Identity>>,
}

impl TableBuilder<'_> {
    /// The table for `view`. Services and instances that `current` has too are taken over from it. A service that the
    /// registry has just forgotten stays for a while, without instances.
    pub(crate) fn next(&self, current: &ServiceTable, view: &View, now: Instant) -> ServiceTable {
        let config = self.config;
        let forgotten = current.services.values().filter(|service| view.instances(&service.name).is_none());
        let remembered = forgotten.filter(|service| service.is_remembered(now)).map(|service| &*service.name);
        let known = view.services().map(|(name, _)| name).chain(remembered);
        let listed = config.expose.iter().map(String::as_str);
        let names: Vec<_> = if config.exposes_all() { known.collect() } else { listed.collect() };
        let entry = |name: &str| {
            let infos = view.instances(name).unwrap_or_default();
            let service = match current.any_service(name) {
                Some(service) => service.with_instances(infos, self.workers, now),
                None => {
                    let identity = self.identity.cloned();
                    UpstreamService::new(name, infos, config, self.workers, self.durations, identity, now)
                }
            };
            (Box::from(name), Arc::new(service))
        };
        let names = names.into_iter().filter(|name| *name != EVERY_SERVICE);
        let services: HashMap<_, _> =
            names.filter(|name| may_be_public(name, self.own_name)).map(entry).collect();
        let asked = config.asked_services().filter(|name| !services.contains_key(*name));
        let inner = asked.filter(|name| may_be_public(name, self.own_name)).map(entry).collect();
        let claims: Vec<_> =
            services.values().map(|service| service.host_claim()).filter(HostClaim::is_any).collect();
        let has = |host: &str, service: &str| {
            current.hosts.get(host).is_some_and(|holder| *holder.name == *service)
        };
        let (assigned, refused) = hosts::assign(&claims, has, self.hosts);
        let of = |(host, name): (Box<str>, Box<str>)| Some((host, Arc::clone(services.get(&name)?)));
        let hosts = assigned.into_iter().filter_map(of).collect();
        let ready = view.revision().is_some() || view.services().next().is_some();
        ServiceTable {
            services,
            inner,
            hosts,
            domains: self.hosts.domains.iter().map(|domain| domain.as_str().into()).collect(),
            refused,
            ready,
        }
    }
}

impl ServiceTable {
    /// The instances that `next` no longer has.
    pub(crate) fn removed(&self, next: &Self) -> Vec<Arc<Instance>> {
        let remaining: HashSet<_> = next.instances().map(Arc::as_ptr).collect();
        self.instances().filter(|instance| !remaining.contains(&Arc::as_ptr(instance))).cloned().collect()
    }

    /// The public service of that name.
    pub(crate) fn service(&self, name: &str) -> Option<&Arc<UpstreamService>> {
        self.services.get(name)
    }

    /// The service of that name, public or not.
    pub(crate) fn any_service(&self, name: &str) -> Option<&Arc<UpstreamService>> {
        self.services.get(name).or_else(|| self.inner.get(name))
    }

    /// The public services, for people.
    pub(crate) fn index(&self) -> Vec<IndexEntry> {
        let mut hosts: HashMap<&str, Vec<String>> = HashMap::new();
        for (host, service) in &self.hosts {
            hosts.entry(&service.name).or_default().push(host.to_string());
        }
        let entry = |service: &Arc<UpstreamService>| IndexEntry {
            service: service.name.to_string(),
            instances: service.instances.len(),
            hosts: hosts.get(&*service.name).cloned().unwrap_or_default(),
        };
        self.services.values().map(entry).collect()
    }

    /// Whether services have hosts below this one.
    pub(crate) fn is_domain(&self, host: &[u8]) -> bool {
        name_of(host).is_some_and(|name| self.domains.iter().any(|domain| domain.eq_ignore_ascii_case(name)))
    }

    /// The public service that a request's `Host` names; `None` for any other host.
    pub(crate) fn by_host(&self, host: &[u8]) -> Option<&Arc<UpstreamService>> {
        let name = lower(name_of(host)?);
        // A host that was given away counts more than one that a service has by its name.
        let own = if self.hosts.is_empty() { None } else { self.hosts.get(&*name) };
        own.or_else(|| self.domains.iter().find_map(|domain| self.services.get(below_domain(&name, domain)?)))
    }

    /// Hosts that members ask for in vain.
    pub(crate) fn refused_hosts(&self) -> &[HostRefusal] {
        &self.refused
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = &Arc<UpstreamService>> {
        self.services.values().chain(self.inner.values())
    }

    /// Whether the registry has sent its lists at least once.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    pub(crate) fn instances(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.services().flat_map(|service| &service.instances)
    }
}

#[cfg(test)]
mod tests;
