//! Hosts of services: which are valid, and which a gateway keeps or gives away.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use crate::names::RESERVED_NAMES;

/// In `Meta`: the hosts whose requests the instance's service asks for, separated by commas.
pub const META_ROUTE_HOSTS: &str = "route.hosts";
/// In the `Meta` of a gateway: its [`GatewayHosts`].
pub const META_GATEWAY_HOSTS: &str = "gateway.hosts";
/// The most hosts that an instance may ask for; further ones are ignored.
pub const MAX_ASKED_HOSTS: usize = 32;
/// For this many seconds a service that has no instance left keeps the hosts that it asked for: it is being replaced.
pub const HOSTS_KEPT_FOR: u64 = 60;
/// Longest text of [`GatewayHosts`], in bytes; hosts that are left out are still refused by the gateway.
const MAX_TEXT: usize = 2048;

/// The hosts in a value of [`META_ROUTE_HOSTS`], in lower case.
pub fn asked_hosts(list: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let hosts = list.split(',').map(str::trim).filter(|host| !host.is_empty());
    hosts.take(MAX_ASKED_HOSTS).map(lower)
}

/// Whether this is a host name that a service can have: no IP address, and not one that some clients would read as one.
///
/// ```
/// use hubspoke_protocol::is_host_name;
///
/// assert!(is_host_name("shop.example.com"));
/// assert!(!is_host_name("127.1") && !is_host_name("shop.example.com:80") && !is_host_name("*.example.com"));
/// ```
pub fn is_host_name(host: &str) -> bool {
    let is_label = |label: &str| {
        let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len())
            && label.bytes().all(valid)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= 253
        && host.split('.').all(is_label)
        && !last.bytes().next().is_some_and(|b| b.is_ascii_digit())
        && host.parse::<IpAddr>().is_err()
}

/// The part before `.domain` in a host; case counts for nothing.
pub fn below_domain<'a>(host: &'a str, domain: &str) -> Option<&'a str> {
    let (rest, end) = host.split_at_checked(host.len().checked_sub(domain.len())?)?;
    if end.eq_ignore_ascii_case(domain) { rest.strip_suffix('.') } else { None }
}

fn lower(text: &str) -> Cow<'_, str> {
    match text.bytes().any(|b| b.is_ascii_uppercase()) {
        true => text.to_ascii_lowercase().into(),
        false => text.into(),
    }
}

/// Why a service does not get a host that its members ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostRefused {
    /// No service can have it.
    Invalid,
    /// It is a host of the gateway itself.
    Gateway,
    /// Below a domain of the gateway, it names another service.
    OtherService,
    /// An operator has decided which hosts the service has.
    Decided,
    /// This service has it.
    Taken(String),
}

impl fmt::Display for HostRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid => f.write_str("it is not a valid host name"),
            Self::Gateway => f.write_str("it is a name of the gateway"),
            Self::OtherService => f.write_str("it names another service"),
            Self::Decided => f.write_str("an operator decides which hosts the service has"),
            Self::Taken(service) => write!(f, "service {service} has it"),
        }
    }
}

impl std::error::Error for HostRefused {}

/// The hosts that a gateway keeps for itself or gives away by its configuration. All of them are in lower case.
///
/// As text, in [`META_GATEWAY_HOSTS`]: `HOST` is one of its own, `*.DOMAIN` one below which each service has a host,
/// `HOST=SERVICE` one that is given away; the members of `=SERVICE` are not asked.
///
/// ```
/// use hubspoke_protocol::{GatewayHosts, HostRefused};
///
/// let hosts: GatewayHosts = "hub.example,*.example,www.example=shop,=shop".into();
/// assert_eq!(hosts.check("cart.example", "cart"), Ok(()));
/// assert_eq!(hosts.check("shop.example", "cart"), Err(HostRefused::OtherService));
/// assert_eq!(hosts.check("www.example", "cart"), Err(HostRefused::Taken("shop".to_owned())));
/// assert_eq!(hosts.to_string(), "*.example,hub.example,www.example=shop,=shop");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GatewayHosts {
    /// Its own.
    pub own: BTreeSet<String>,
    /// The domains below which each service has a host.
    pub domains: BTreeSet<String>,
    /// Hosts that are given away, with their services.
    pub given: BTreeMap<String, String>,
    /// Services whose hosts the configuration decides: their members are not asked.
    pub decided: BTreeSet<String>,
}

impl GatewayHosts {
    /// Whether members of `service` may have a host, which is in lower case, as far as this gateway's own hosts are
    /// concerned.
    ///
    /// # Errors
    /// [`HostRefused`].
    pub fn check(&self, host: &str, service: &str) -> Result<(), HostRefused> {
        if !is_host_name(host) {
            return Err(HostRefused::Invalid);
        }
        if RESERVED_NAMES.contains(&host) || self.own.contains(host) || self.domains.contains(host) {
            return Err(HostRefused::Gateway);
        }
        if let Some(holder) = self.given.get(host) {
            return if holder == service { Ok(()) } else { Err(HostRefused::Taken(holder.clone())) };
        }
        let names_other = |domain: &String| below_domain(host, domain).is_some_and(|name| name != service);
        if self.domains.iter().any(names_other) {
            return Err(HostRefused::OtherService);
        }
        if self.decided.contains(service) { Err(HostRefused::Decided) } else { Ok(()) }
    }
}

impl From<&str> for GatewayHosts {
    /// Ignores what is not valid.
    fn from(text: &str) -> Self {
        let mut hosts = Self::default();
        let text = text.get(..text.len().min(MAX_TEXT)).unwrap_or_default();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            match (entry.strip_prefix("*."), entry.split_once('=')) {
                (Some(domain), _) => drop(hosts.domains.insert(domain.to_owned())),
                (None, Some(("", service))) => drop(hosts.decided.insert(service.to_owned())),
                (None, Some((host, service))) => {
                    hosts.given.insert(host.to_owned(), service.to_owned());
                }
                (None, None) => drop(hosts.own.insert(entry.to_owned())),
            }
        }
        hosts
    }
}

/// As many as there is room for.
impl fmt::Display for GatewayHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let domains = self.domains.iter().map(|domain| format!("*.{domain}"));
        let given = self.given.iter().map(|(host, service)| format!("{host}={service}"));
        let decided = self.decided.iter().map(|service| format!("={service}"));
        let mut length = 0;
        for entry in domains.chain(self.own.iter().cloned()).chain(given).chain(decided) {
            let separator = if length == 0 { "" } else { "," };
            length += entry.len() + separator.len();
            if length > MAX_TEXT {
                break;
            }
            write!(f, "{separator}{entry}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_name_of_a_service_is_below_a_domain() {
        assert_eq!(below_domain("Shop.LocalHost", "localhost"), Some("Shop"));
        assert_eq!(below_domain("localhost", "localhost"), None);
        assert_eq!(below_domain("shoplocalhost", "localhost"), None);
    }

    #[test]
    fn nobody_can_ask_for_the_gateways_names_or_anothers() {
        let hosts: GatewayHosts =
            "gateway,hub.example,*.localhost,*.apps.example,given.example=cart,=toys".into();
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
            ("given.example", Err(HostRefused::Taken("cart".to_owned()))),
            ("shop.localhost", Ok(())),
            ("shop.example", Ok(())),
        ] {
            assert_eq!(hosts.check(host, "shop"), expected, "{host}");
        }
        assert_eq!(hosts.check("shop.example", "toys"), Err(HostRefused::Decided));
        assert_eq!(hosts.check("given.example", "cart"), Ok(()));
    }

    #[test]
    fn an_instance_may_ask_for_a_few_hosts() {
        let asked = |list: &str| asked_hosts(list).map(Cow::into_owned).collect::<Vec<_>>();
        assert_eq!(asked(" Shop.Example, ,www.shop.example"), ["shop.example", "www.shop.example"]);
        assert_eq!(asked(&"a.example,".repeat(100)).len(), MAX_ASKED_HOSTS);
    }

    proptest! {
        #[test]
        fn the_text_of_a_gateways_hosts_is_bounded_and_read_as_it_was_written(
            own in proptest::collection::btree_set("[a-z]{1,9}(\\.[a-z]{1,9}){0,2}", 0..9),
            domains in proptest::collection::btree_set("[a-z]{1,9}(\\.[a-z]{1,9}){0,2}", 0..4),
            given in proptest::collection::btree_map("[a-z]{1,9}\\.[a-z]{1,9}", "[a-z0-9]{1,9}", 0..200),
            decided in proptest::collection::btree_set("[a-z0-9]{1,9}", 0..9),
        ) {
            let hosts = GatewayHosts { own, domains, given, decided };
            let text = hosts.to_string();
            prop_assert!(text.len() <= MAX_TEXT);
            let read = GatewayHosts::from(&*text);
            prop_assert!(read.own.is_subset(&hosts.own) && read.domains.is_subset(&hosts.domains));
            prop_assert!(read.given.iter().all(|(host, service)| hosts.given.get(host) == Some(service)));
            if text.len() < MAX_TEXT / 2 {
                prop_assert_eq!(read, hosts);
            }
        }

        #[test]
        fn any_text_is_read(text in ".{0,200}") {
            let hosts = GatewayHosts::from(&*text);
            prop_assert_eq!(GatewayHosts::from(&*hosts.to_string()), hosts);
        }
    }
}
