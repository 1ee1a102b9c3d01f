//! Which service a host names: `NAME.localhost` and `NAME.<domain>` name the service NAME, and a service may have hosts of
//! its own. Pure.
//!
//! An operator gives hosts away; members ask for them, and the first that does keeps its host for as long as it asks. Since
//! when a service asks comes from the registry, so it outlives restarts of the gateway, and all gateways agree. No service
//! gets a name of the gateway, or a host that is another service's by its name.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use hubspoke_protocol::{GatewayHosts, HostRefused, MAX_ASKED_HOSTS};

/// The hosts that the members of a service ask for, in lower case, each with the time since when; `u64::MAX` if the
/// registry does not tell that.
pub(super) type AskedHosts = BTreeMap<Box<str>, u64>;

/// A service that would have hosts of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct HostClaim<'a> {
    pub(super) service: &'a str,
    /// From the configuration; if set, members are not asked.
    pub(super) given: Option<&'a [String]>,
    /// `route.hosts` of its members.
    pub(super) asked: &'a AskedHosts,
}

impl HostClaim<'_> {
    pub(super) fn is_any(&self) -> bool {
        self.given.is_some_and(|hosts| !hosts.is_empty()) || !self.asked.is_empty()
    }
}

/// A host that a service has not got, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostRefusal {
    pub(crate) service: Box<str>,
    pub(crate) host: Box<str>,
    pub(crate) reason: HostRefused,
}

/// Hosts, each with the name of its service.
pub(super) type Hosts = HashMap<Box<str>, Box<str>>;

/// Distributes hosts among services. `has` is whether a service (the second argument) has a host now.
pub(super) fn assign(
    claims: &[HostClaim<'_>],
    has: impl Fn(&str, &str) -> bool,
    gateway: &GatewayHosts,
) -> (Hosts, Vec<HostRefusal>) {
    let (mut hosts, mut refused) = (Hosts::new(), Vec::new());
    for claim in claims {
        for host in claim.given.unwrap_or_default() {
            hosts.entry(host.to_ascii_lowercase().into()).or_insert_with(|| claim.service.into());
        }
    }
    // The first that asked; if nobody knows who that was, those that have a host, then the others by their names: so that
    // the order of lists decides nothing.
    let mut wanted: BTreeSet<(u64, bool, &str, &str)> = BTreeSet::new();
    for claim in claims.iter().filter(|claim| claim.given.is_none()) {
        for (host, since) in claim.asked.iter().take(MAX_ASKED_HOSTS) {
            wanted.insert((*since, !has(host, claim.service), claim.service, host));
        }
    }
    for (_, _, service, host) in wanted {
        let reason = match hosts.get(host) {
            Some(holder) if **holder == *service => continue,
            Some(holder) => Some(HostRefused::Taken(holder.to_string())),
            None => gateway.check(host, service).err(),
        };
        match reason {
            Some(reason) => {
                refused.push(HostRefusal { service: service.into(), host: Box::from(host), reason });
            }
            None => drop(hosts.insert(Box::from(host), service.into())),
        }
    }
    (hosts, refused)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(hosts: &[&str], since: u64) -> AskedHosts {
        hosts.iter().map(|host| (Box::from(*host), since)).collect()
    }

    fn gateway() -> GatewayHosts {
        "hub.example,gateway,*.localhost,*.apps.example".into()
    }

    fn refusal(service: &str, host: &str, holder: &str) -> HostRefusal {
        let reason = HostRefused::Taken(holder.to_owned());
        HostRefusal { service: service.into(), host: host.into(), reason }
    }

    #[test]
    fn the_first_that_asks_for_a_host_keeps_it() {
        let hosts = asked(&["shop.example"], u64::MAX);
        let claim = |service| HostClaim { service, given: None, asked: &hosts };
        let (first, refused) = assign(&[claim("zoo")], |_, _| false, &gateway());
        assert_eq!((first.len(), &*first["shop.example"], refused.len()), (1, "zoo", 0));
        let both = [claim("bar"), claim("zoo")];
        let holder = |host: &str, service: &str| first.get(host).is_some_and(|holder| **holder == *service);
        let (second, refused) = assign(&both, holder, &gateway());
        assert_eq!(&*second["shop.example"], "zoo");
        assert_eq!(refused, [refusal("bar", "shop.example", "zoo")]);
        let (third, refused) = assign(&both[..1], |_, service| service == "zoo", &gateway());
        assert_eq!((&*third["shop.example"], refused.len()), ("bar", 0));
    }

    #[test]
    fn the_registry_knows_who_was_first() {
        let (early, late) = (asked(&["shop.example"], 5), asked(&["shop.example", "late.example"], 7));
        let claims = [
            HostClaim { service: "bar", given: None, asked: &late },
            HostClaim { service: "zoo", given: None, asked: &early },
        ];
        // Whoever had it before, and after a restart of the gateway, when nobody had.
        for holder in ["bar", "zoo", ""] {
            let (hosts, refused) = assign(&claims, |_, service| service == holder, &gateway());
            assert_eq!((&*hosts["shop.example"], &*hosts["late.example"]), ("zoo", "bar"));
            assert_eq!(refused, [refusal("bar", "shop.example", "zoo")]);
        }
    }

    #[test]
    fn an_operator_gives_hosts_away_and_members_of_that_service_are_not_asked() {
        let (given, asked) = (["Shop.example".to_owned()], asked(&["shop.example", "other.example"], 1));
        let claims = [
            HostClaim { service: "bar", given: None, asked: &asked },
            HostClaim { service: "shop", given: Some(&given), asked: &asked },
        ];
        let (hosts, refused) = assign(&claims, |_, service| service == "bar", &gateway());
        assert_eq!((&*hosts["shop.example"], &*hosts["other.example"]), ("shop", "bar"));
        assert_eq!(refused, [refusal("bar", "shop.example", "shop")]);
        // Also while no instance of that service is known.
        let gateway: GatewayHosts = "shop.example=shop,=shop".into();
        let (hosts, refused) = assign(&claims[..1], |_, _| false, &gateway);
        assert_eq!(hosts.get("shop.example"), None);
        assert_eq!(refused, [refusal("bar", "shop.example", "shop")]);
    }

    proptest! {
        #[test]
        fn a_host_belongs_to_the_first_of_those_that_ask_whatever_their_order_and_whoever_had_it(
            asks in proptest::collection::vec((0..6_usize, 0..6_usize, 0..9_u64), 0..30),
            had in proptest::collection::hash_map(0..6_usize, 0..6_usize, 0..6),
        ) {
            const HOSTS: [&str; 6] =
                ["a.example", "b.example", "hub.example", "s0.localhost", "127.0.0.1", "c.example"];
            const SERVICES: [&str; 6] = ["s0", "s1", "s2", "s3", "s4", "s5"];
            let mut by_service = vec![AskedHosts::new(); 6];
            for (service, host, since) in &asks {
                by_service[*service].insert(HOSTS[*host].into(), *since);
            }
            let claims: Vec<_> = SERVICES
                .iter()
                .zip(&by_service)
                .map(|(service, asked)| HostClaim { service, given: None, asked })
                .collect();
            let has = |host: &str, service: &str| {
                had.iter().any(|(at, holder)| HOSTS[*at] == host && SERVICES[*holder] == service)
            };
            let (hosts, refused) = assign(&claims, has, &gateway());
            let reversed: Vec<_> = claims.iter().rev().copied().collect();
            prop_assert_eq!(&assign(&reversed, has, &gateway()), &(hosts.clone(), refused.clone()));
            for (host, holder) in &hosts {
                let first = claims.iter().filter_map(|claim| claim.asked.get(host)).min();
                let own = claims.iter().find(|claim| claim.service == &**holder);
                let own = own.and_then(|claim| claim.asked.get(host));
                prop_assert!(own.is_some() && (own == first || &**host == "s0.localhost"));
                prop_assert_eq!(gateway().check(host, holder), Ok(()));
            }
            // Each wish is granted, or refused with a reason.
            for claim in &claims {
                for host in claim.asked.keys() {
                    let granted = hosts.get(host).is_some_and(|holder| **holder == *claim.service);
                    let told = refused.iter().any(|it| *it.service == *claim.service && it.host == *host);
                    prop_assert!(granted != told);
                }
            }
        }
    }
}
