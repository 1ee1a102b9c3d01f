use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use hubspoke_protocol::{EVERY_SERVICE, Heartbeat, ServiceInfo, Status};

use self::model::Model;
use super::EventOutcome::{Changed, Unchanged, Unknown};
use super::*;
use crate::config::Settings;

mod model;
mod rules;
mod several;

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.history.removed_max = 4;
    settings.protection.min_instances = 6;
    settings.flap.limit = 2;
    settings.heartbeat.recheck = Duration::from_secs(20);
    settings
}

/// One step of a random test. Names and addresses are few, so that events meet.
#[derive(Debug, Clone)]
enum Step {
    Register { name: u8, addr: u8, id: u8, required: Vec<u8>, fact: bool },
    Deregister { name: u8, addr: u8, id: Option<u8>, operator: bool },
    // The result of one of the heartbeats in flight.
    Result { which: usize, answer: Answer },
    // The result of a heartbeat that is not in flight: a late one, or one that was never sent.
    LateResult { name: u8, addr: u8, number: u64, answer: Answer },
    // One of the heartbeats in flight could not be sent.
    NotSent(usize),
    Drain { name: u8, addr: u8, on: bool },
    Protect(bool),
    // `removed` below 2: registered, drained or not; else removed.
    Restore { name: u8, addr: u8, id: u8, required: Vec<u8>, removed: u8 },
    Wait(u16),
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Plain,
    Serving,
    Draining,
    Missed,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = 0..4_u8;
    let addr = 0..4_u8;
    let required = || proptest::collection::vec(0..5_u8, 0..3);
    let answer = || {
        prop_oneof![
            3 => Just(Answer::Missed),
            1 => Just(Answer::Plain),
            1 => Just(Answer::Serving),
            1 => Just(Answer::Draining),
        ]
    };
    let step = prop_oneof![
        6 => (name.clone(), addr.clone(), 0..3_u8, required(), any::<bool>())
            .prop_map(|(name, addr, id, required, fact)| Step::Register { name, addr, id, required, fact }),
        2 => (name.clone(), addr.clone(), proptest::option::of(0..3_u8), any::<bool>())
            .prop_map(|(name, addr, id, operator)| Step::Deregister { name, addr, id, operator }),
        12 => (any::<usize>(), answer()).prop_map(|(which, answer)| Step::Result { which, answer }),
        1 => (name.clone(), addr.clone(), 0..60_u64, answer())
            .prop_map(|(name, addr, number, answer)| Step::LateResult { name, addr, number, answer }),
        1 => any::<usize>().prop_map(Step::NotSent),
        1 => (name.clone(), addr.clone(), any::<bool>())
            .prop_map(|(name, addr, on)| Step::Drain { name, addr, on }),
        1 => any::<bool>().prop_map(Step::Protect),
        1 => (name, addr, 0..3_u8, required(), 0..4_u8).prop_map(|(name, addr, id, required, removed)| {
            Step::Restore { name, addr, id, required, removed }
        }),
        3 => (0..9000_u16).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..120)
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", EVERY_SERVICE];

fn info(name: u8, addr: u8, id: Option<u8>, required: &[u8]) -> ServiceInfo {
    let mut required: Vec<_> = required.iter().map(|&i| NAMES[usize::from(i)].to_owned()).collect();
    required.sort();
    required.dedup();
    ServiceInfo {
        id: id.map(|id| format!("id-{id}")),
        required_services: required,
        ..ServiceInfo::new(NAMES[usize::from(name)], format!("10.0.0.{addr}:80"))
    }
}

/// Members with the number 0 know only the core protocol.
fn some_id(id: u8) -> Option<u8> {
    (id > 0).then_some(id)
}

fn registration(info: ServiceInfo) -> CatalogEvent {
    CatalogEvent::Register(info, None)
}

fn key(name: u8, addr: u8) -> InstanceKey {
    InstanceKey::new(NAMES[usize::from(name)], &format!("10.0.0.{addr}:80"))
}

fn answer(answer: Answer) -> Result<Option<Heartbeat>, String> {
    match answer {
        Answer::Plain => Ok(None),
        Answer::Serving => {
            Ok(Some(Heartbeat { status: Status::Serving, requests: Some(7), in_flight: Some(1) }))
        }
        Answer::Draining => {
            Ok(Some(Heartbeat { status: Status::Draining, requests: Some(8), in_flight: Some(0) }))
        }
        Answer::Missed => Err("refused".into()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_events_keeps_index_revision_and_effects_consistent(steps in steps()) {
        let mut catalog = Catalog::new(settings());
        let mut model = Model::default();
        for step in &steps {
            model.step(&mut catalog, step);
            model.check(&mut catalog);
        }
    }

    /// The lists that changed since a revision bring a view of that revision up to date, or `None` shows that they do
    /// not suffice. An empty list of a service that was forgotten since may stay: either way, there is no instance.
    #[test]
    fn changed_lists_bring_any_older_view_up_to_date(
        steps in steps(), from in 0..60_usize, wildcard in any::<bool>(),
    ) {
        let mut catalog = Catalog::new(settings());
        let mut model = Model::default();
        let all = info(0, 0, None, if wildcard { &[4] } else { &[0, 1, 2, 3] });
        let text = |(name, list): (Arc<str>, Arc<InstanceList>)| (name.to_string(), list.json().clone());
        let mut view: Option<(u64, BTreeMap<String, Bytes>)> = None;
        for (i, step) in steps.iter().enumerate() {
            model.step(&mut catalog, step);
            if i == from {
                view = Some((catalog.revision(), catalog.lists(&all).into_iter().map(text).collect()));
            }
        }
        if let Some((since, mut view)) = view {
            let now: BTreeMap<_, _> = catalog.lists(&all).into_iter().map(text).collect();
            let Some(changed) = catalog.changed_lists(&all, since) else {
                prop_assert!(wildcard, "changed lists suffice if services are required by name");
                prop_assert!(catalog.newest_for(&all) > since, "its heartbeat shows that it is behind");
                return Ok(());
            };
            view.extend(changed.into_iter().map(text));
            view.retain(|name, list| now.contains_key(name) || **list != *b"[]");
            prop_assert_eq!(view, now);
        }
    }
}
