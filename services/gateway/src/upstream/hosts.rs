//! Which service a host names: `NAME.localhost` and `NAME.<domain>` name the service NAME, and a service may have hosts of
//! its own. Pure.
//!
//! An operator gives hosts away; members ask for them, and the first that does keeps its host for as long as it asks. No
//! service gets a name of the gateway, or a host that is another service's by its name.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use hubspoke_protocol::RESERVED_NAMES;

use crate::config::GatewayConfig;
use crate::host_name::{below, is_host_name, lower};

/// The most hosts that the members of a service may ask for; further ones are ignored.
const MAX_ASKED: usize = 32;
/// Every service has a host below it, which browsers and curl resolve to this machine (RFC 6761, 6.3).
const LOCALHOST: &str = "localhost";

/// A service that would have hosts of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct HostClaim<'a> {
    pub(super) service: &'a str,
    /// From the configuration; if set, members are not asked.
    pub(super) given: Option<&'a [String]>,
    /// `route.hosts` of its members.
    pub(super) asked: &'a [Box<str>],
}

impl HostClaim<'_> {
    pub(super) fn is_any(&self) -> bool {
        self.given.is_some_and(|hosts| !hosts.is_empty()) || !self.asked.is_empty()
    }
}

/// Why a service has not got a host that its members ask for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HostRefused {
    #[error("it is not a valid host name")]
    Invalid,
    #[error("it is a name of the gateway")]
    Gateway,
    #[error("it names another service")]
    OtherService,
    #[error("service {0} has it")]
    Taken(String),
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

/// Distributes hosts among services. `has` is whether a service (the second argument) has a host now; `own` is the gateway's registered name.
pub(super) fn assign(
    claims: &[HostClaim<'_>],
    has: impl Fn(&str, &str) -> bool,
    config: &GatewayConfig,
    own: &str,
) -> (Hosts, Vec<HostRefusal>) {
    let (mut hosts, mut refused) = (Hosts::new(), Vec::new());
    for claim in claims {
        for host in claim.given.unwrap_or_default() {
            hosts.entry(host.to_ascii_lowercase().into()).or_insert_with(|| claim.service.into());
        }
    }
    // Those that have a host first, then the others by their names: so that the order of lists decides nothing.
    let asking = claims.iter().filter(|claim| claim.given.is_none());
    let mut wanted: BTreeSet<(bool, &str, Cow<'_, str>)> = BTreeSet::new();
    for claim in asking {
        for host in claim.asked.iter().take(MAX_ASKED).map(|host| lower(host)) {
            let is_new = !has(&host, claim.service);
            wanted.insert((is_new, claim.service, host));
        }
    }
    for (_, service, host) in wanted {
        let reason = match hosts.get(&*host) {
            Some(holder) if **holder == *service => continue,
            Some(holder) => Some(HostRefused::Taken(holder.to_string())),
            None => check(&host, service, config, own).err(),
        };
        match reason {
            Some(reason) => {
                refused.push(HostRefusal { service: service.into(), host: Box::from(&*host), reason });
            }
            None => drop(hosts.insert(Box::from(&*host), service.into())),
        }
    }
    (hosts, refused)
}

/// Whether a service's members may ask for a host.
fn check(host: &str, service: &str, config: &GatewayConfig, own: &str) -> Result<(), HostRefused> {
    if !is_host_name(host) {
        return Err(HostRefused::Invalid);
    }
    let domains = domains(config);
    let is_own = |name: &str| name.eq_ignore_ascii_case(host);
    let is_reserved = host == own || RESERVED_NAMES.contains(&host);
    if is_reserved
        || domains.iter().any(|domain| is_own(domain))
        || config.hosts.iter().any(|name| is_own(name))
    {
        return Err(HostRefused::Gateway);
    }
    let names_other = |domain: &&str| below(host, domain).is_some_and(|name| name != service);
    match domains.iter().any(|domain| names_other(&&**domain)) {
        true => Err(HostRefused::OtherService),
        false => Ok(()),
    }
}

/// The domains below which each service has a host.
pub(super) fn domains(config: &GatewayConfig) -> Vec<Box<str>> {
    let own = config.domain.iter().map(|domain| domain.to_ascii_lowercase().into());
    std::iter::once(LOCALHOST.into()).chain(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(hosts: &[&str]) -> Vec<Box<str>> {
        hosts.iter().map(|host| Box::from(*host)).collect()
    }

    fn config() -> GatewayConfig {
        let hosts = vec!["hub.example".to_owned()];
        GatewayConfig { domain: Some("apps.example".to_owned()), hosts, ..GatewayConfig::default() }
    }

    #[test]
    fn the_first_that_asks_for_a_host_keeps_it() {
        let hosts = boxed(&["Shop.example", "shop.example"]);
        let claim = |service| HostClaim { service, given: None, asked: &hosts };
        let (first, refused) = assign(&[claim("zoo")], |_, _| false, &config(), "gateway");
        assert_eq!((first.len(), &*first["shop.example"], refused.len()), (1, "zoo", 0));
        let both = [claim("bar"), claim("zoo")];
        let holder = |host: &str, service: &str| first.get(host).is_some_and(|holder| **holder == *service);
        let (second, refused) = assign(&both, holder, &config(), "gateway");
        assert_eq!(&*second["shop.example"], "zoo");
        let taken = HostRefused::Taken("zoo".to_owned());
        assert_eq!(
            refused,
            [HostRefusal { service: "bar".into(), host: "shop.example".into(), reason: taken }]
        );
        let (third, refused) = assign(&both[..1], |_, service| service == "zoo", &config(), "gateway");
        assert_eq!((&*third["shop.example"], refused.len()), ("bar", 0));
    }

    #[test]
    fn an_operator_gives_hosts_away_and_members_of_that_service_are_not_asked() {
        let (given, asked) = (["Shop.example".to_owned()], boxed(&["shop.example", "other.example"]));
        let claims = [
            HostClaim { service: "bar", given: None, asked: &asked },
            HostClaim { service: "shop", given: Some(&given), asked: &asked },
        ];
        let (hosts, refused) = assign(&claims, |_, service| service == "bar", &config(), "gateway");
        assert_eq!((&*hosts["shop.example"], &*hosts["other.example"]), ("shop", "bar"));
        let reason = HostRefused::Taken("shop".to_owned());
        assert_eq!(refused, [HostRefusal { service: "bar".into(), host: "shop.example".into(), reason }]);
    }

    #[test]
    fn nobody_can_ask_for_the_gateways_names_or_anothers() {
        for (host, expected) in [
            ("127.0.0.1", Err(HostRefused::Invalid)),
            ("127.1", Err(HostRefused::Invalid)),
            ("[::1]", Err(HostRefused::Invalid)),
            ("shop.example:80", Err(HostRefused::Invalid)),
            ("*.example", Err(HostRefused::Invalid)),
            ("", Err(HostRefused::Invalid)),
            ("localhost", Err(HostRefused::Gateway)),
            ("gateway", Err(HostRefused::Gateway)),
            ("hub.example", Err(HostRefused::Gateway)),
            ("apps.example", Err(HostRefused::Gateway)),
            ("metrics", Err(HostRefused::Gateway)),
            ("log.localhost", Err(HostRefused::OtherService)),
            ("a.b.apps.example", Err(HostRefused::OtherService)),
            ("shop.localhost", Ok(())),
            ("shop.example", Ok(())),
        ] {
            assert_eq!(check(host, "shop", &config(), "gateway"), expected, "{host}");
        }
    }
}
