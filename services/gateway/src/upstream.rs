//! What the gateway knows of the services behind it: a [`Table`] of them, rebuilt from the directory at each change and
//! read without a lock by every request. An [`Instance`] lives as long as its registration (name, address, id) stays
//! the same, whatever else changes, so that its connections, its ejection and its counters outlive the table.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hubspoke_client::directory::View;
use hubspoke_protocol::EVERY_SERVICE;
use rand::Rng;

use crate::balance::{self, Balance, Tier, Weights};
use crate::config::{EjectConfig, EncodedSlash, GatewayConfig, Sticky};
use crate::metrics::{Durations, ServiceStats};
use crate::route::may_be_public;

pub(crate) use self::instance::{InFlight, Instance};

pub(crate) mod connect;
pub(crate) mod h1;
mod instance;
pub(crate) mod pool;

/// All public services at one moment.
#[derive(Debug, Default)]
pub(crate) struct Table {
    services: HashMap<Box<str>, Arc<Service>>,
    /// Whether the registry has said anything yet.
    heard: bool,
}

/// One public service at one moment.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: Box<str>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) instances: Vec<Arc<Instance>>,
    pub(crate) stats: Arc<ServiceStats>,
    weights: Weights,
}

/// The general settings with a service's own on top.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub(crate) balance: Balance,
    pub(crate) sticky: Option<Sticky>,
    pub(crate) pass_encoded_slash: bool,
    pub(crate) connect: Duration,
    pub(crate) first_byte: Duration,
    pub(crate) total: Duration,
    pub(crate) idle: Duration,
    /// Bytes; 0 is no limit.
    pub(crate) body_size: u64,
    /// Bytes per second; 0 is no limit.
    pub(crate) body_rate: u64,
    pub(crate) in_flight: usize,
    pub(crate) attempts: u32,
}

impl Settings {
    fn of(service: &str, config: &GatewayConfig) -> Self {
        let own = config.services.get(service).cloned().unwrap_or_default();
        let (timeouts, limits) = (&config.timeouts, &config.limits);
        Self {
            balance: own.balance.unwrap_or(config.balance),
            sticky: own.sticky,
            pass_encoded_slash: own.encoded_slash == EncodedSlash::Pass,
            connect: own.connect.unwrap_or(timeouts.connect),
            first_byte: own.first_byte.unwrap_or(timeouts.first_byte),
            total: own.total.unwrap_or(timeouts.total),
            idle: own.idle.unwrap_or(timeouts.idle),
            body_size: own.body_size.unwrap_or(limits.body_size).as_u64(),
            body_rate: own.body_rate.unwrap_or(limits.body_rate).as_u64(),
            in_flight: own.in_flight.unwrap_or(limits.in_flight),
            attempts: own.attempts.unwrap_or(config.retry.attempts),
        }
    }
}

/// What new instances and services are made with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Make<'a> {
    /// Each has a pool of its own per instance.
    pub(crate) workers: usize,
    pub(crate) durations: &'a Durations,
}

impl Table {
    /// The table for a view of the directory. Instances that `self` has and the new one has not are closed.
    pub(crate) fn next(&self, view: &View, config: &GatewayConfig, own: &str, make: &Make<'_>) -> Self {
        let heard = view.revision().is_some() || view.services().next().is_some();
        let known = view.services().map(|(name, _)| name);
        let listed = config.expose.iter().map(String::as_str).filter(|_| !config.exposes_all());
        let names = if config.exposes_all() { known.collect() } else { listed.collect::<Vec<_>>() };
        let services = names
            .into_iter()
            .filter(|name| *name != EVERY_SERVICE && may_be_public(name, own))
            .map(|name| {
                let before = self.services.get(name);
                let infos = view.instances(name).unwrap_or_default();
                let service = Service::next(name, before.map(Arc::as_ref), infos, config, make);
                (Box::from(name), Arc::new(service))
            })
            .collect();
        Self { services, heard }
    }

    /// The instances that `next` no longer has.
    pub(crate) fn left<'a>(&'a self, next: &'a Self) -> impl Iterator<Item = &'a Arc<Instance>> {
        self.instances().filter(|instance| !next.has(instance))
    }

    /// The public service of that name.
    pub(crate) fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    pub(crate) fn heard(&self) -> bool {
        self.heard
    }

    pub(crate) fn instances(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.services.values().flat_map(|service| &service.instances)
    }

    fn has(&self, instance: &Arc<Instance>) -> bool {
        let service = self.services.get(&*instance.service);
        service.is_some_and(|service| service.instances.iter().any(|other| Arc::ptr_eq(other, instance)))
    }
}

impl Service {
    fn next(
        name: &str,
        before: Option<&Self>,
        infos: &[Arc<hubspoke_protocol::ServiceInfo>],
        config: &GatewayConfig,
        make: &Make<'_>,
    ) -> Self {
        let known = before.map(|before| before.instances.as_slice()).unwrap_or_default();
        let instances: Vec<_> = infos
            .iter()
            .map(|info| match known.iter().find(|instance| instance.is(info)) {
                Some(instance) => {
                    instance.set_state(info.state());
                    instance.clone()
                }
                None => Arc::new(Instance::new(info, make.workers)),
            })
            .collect();
        let weights: Vec<u32> = instances.iter().map(|instance| instance.weight).collect();
        Self {
            name: name.into(),
            settings: match before {
                Some(before) => before.settings.clone(),
                None => Arc::new(Settings::of(name, config)),
            },
            weights: Weights::new(&weights),
            instances,
            stats: match before {
                Some(before) => before.stats.clone(),
                None => Arc::new(ServiceStats::new(name, &config.retry, make.durations)),
            },
        }
    }

    /// An instance for a request that has already been at `tried`.
    pub(crate) fn pick(
        &self,
        tried: &[Arc<Instance>],
        key: Option<&[u8]>,
        now: Instant,
        eject: &EjectConfig,
        rng: &mut impl Rng,
    ) -> Option<Arc<Instance>> {
        let tier = |i: usize| match self.instances.get(i) {
            Some(instance) if tried.iter().any(|other| Arc::ptr_eq(other, instance)) => Tier::Never,
            Some(instance) => match instance.tier(now, eject) {
                // The request that was to try it out has ended and proved nothing: its client went, or was at fault.
                Tier::Ejected if instance.in_flight() == 0 => {
                    instance.tier(now, &EjectConfig { max: Duration::ZERO, ..eject.clone() })
                }
                tier => tier,
            },
            None => Tier::Never,
        };
        let index = match key {
            Some(key) => {
                let id = |i: usize| self.instances.get(i).map_or("", |instance| &*instance.id);
                balance::pick_by_key(key, &self.weights, tier, id)
            }
            None => {
                let in_flight = |i: usize| self.instances.get(i).map_or(0, |instance| instance.in_flight());
                balance::pick(self.settings.balance, &self.weights, tier, in_flight, rng)
            }
        };
        let instance = self.instances.get(index?)?;
        instance.picked(now);
        Some(instance.clone())
    }

    /// How many instances are ejected.
    pub(crate) fn ejected(&self) -> usize {
        self.instances.iter().filter(|instance| instance.is_ejected()).count()
    }
}

#[cfg(test)]
mod tests;
