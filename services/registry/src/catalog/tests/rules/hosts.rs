//! Hosts that members ask for.

use hubspoke_protocol::META_ROUTE_HOSTS;

use super::*;

const HOST: &str = "same.example";

impl Fixture {
    /// Registers an instance as the registry's API does it.
    fn ask(&mut self, name: u8, addr: u8, id: u8, host: Option<&str>) {
        let mut info = info(name, addr, Some(id), &[]);
        info.meta.extend(host.map(|host| (META_ROUTE_HOSTS.to_owned(), host.to_owned())));
        let wall = u64::try_from(self.now.as_millis()).unwrap();
        info.hosts_since = self.catalog.hosts_since(&info, self.now, wall);
        self.apply(registration(info));
    }

    /// The services that ask for the host, and whether they are told that they do not get it.
    fn told(&self) -> Vec<(String, bool)> {
        let gateways = self.catalog.gateways_hosts();
        let instances = self.catalog.services.values().flat_map(|service| service.instances.values());
        let asking = instances.filter(|instance| !instance.info.hosts_since.is_empty());
        let told = |info: &ServiceInfo| !self.catalog.host_warnings(info, &gateways).is_empty();
        let mut all: Vec<_> =
            asking.map(|instance| (instance.info.name.clone(), told(&instance.info))).collect();
        all.sort();
        all.dedup();
        all
    }
}

fn all(told: &[(&str, bool)]) -> Vec<(String, bool)> {
    told.iter().map(|(name, told)| ((*name).to_owned(), *told)).collect()
}

#[test]
fn a_service_that_was_gone_for_too_long_asks_anew() {
    let mut fixture = Fixture::new();
    fixture.ask(1, 0, 1, Some(HOST));
    fixture.now = seconds(1);
    fixture.ask(0, 0, 1, Some(HOST));
    let leave = CatalogEvent::Deregister { key: key(1, 0), id: None, by: Initiator::Instance(String::new()) };
    for (gone, b_has_it) in [(59, true), (61, false)] {
        fixture.apply(leave.clone());
        assert_eq!(fixture.told(), all(&[("a", false)]));
        fixture.now = fixture.now + Duration::from_secs(gone);
        fixture.ask(1, 1, 1, Some(HOST));
        assert_eq!(fixture.told(), all(&[("a", b_has_it), ("b", !b_has_it)]));
        fixture.apply(CatalogEvent::Deregister {
            key: key(1, 1),
            id: None,
            by: Initiator::Instance(String::new()),
        });
        fixture.ask(1, 0, 2, Some(HOST));
    }
}

#[test]
fn who_may_not_have_a_host_keeps_nobody_from_it() {
    let mut fixture = Fixture::new();
    fixture.ask(1, 0, 1, Some("a.localhost"));
    fixture.now = seconds(1);
    fixture.ask(0, 0, 1, Some("a.localhost"));
    assert_eq!(fixture.told(), all(&[("a", false), ("b", true)]));
}

proptest! {
    #[test]
    fn whoever_has_a_host_keeps_it_while_it_asks_and_nobody_else_is_told_so(
        steps in proptest::collection::vec((0..3_u8, 0..3_u8, 0..3_u8, 0..4_u8, 0..40_i64), 1..60),
    ) {
        let mut fixture = Fixture::new();
        let mut holder: Option<(Option<u64>, String)> = None;
        for (name, addr, id, what, pause) in steps {
            fixture.now = fixture.now + Duration::from_secs(u64::try_from(pause).unwrap());
            match what {
                0 => drop(fixture.apply(CatalogEvent::Deregister {
                    key: key(name, addr),
                    id: None,
                    by: Initiator::Instance(String::new()),
                })),
                1 => fixture.ask(name, addr, id, None),
                _ => fixture.ask(name, addr, id, Some(HOST)),
            }
            let told = fixture.told();
            let has: Vec<_> = told.iter().filter(|(_, told)| !told).map(|(name, _)| name.clone()).collect();
            prop_assert_eq!(has.len(), usize::from(!told.is_empty()), "one of those that ask: {:?}", told);
            let since = |name: &str| {
                let instances = fixture.catalog.services[name].instances.values();
                instances.filter_map(|instance| instance.info.hosts_since.get(HOST)).min().copied()
            };
            let now = has.first().map(|name| (since(name), name.clone()));
            if let Some(before) = holder.filter(|(_, before)| told.iter().any(|(name, _)| name == before)) {
                prop_assert!(now.as_ref().is_some_and(|now| *now <= before), "{now:?} after {before:?}");
            }
            holder = now;
            let asks: usize = fixture.catalog.services.values()
                .flat_map(|service| service.instances.values())
                .map(|instance| instance.info.hosts_since.len())
                .sum();
            prop_assert_eq!(fixture.catalog.hosts.len(), asks, "the index holds what is registered");
        }
    }
}
