//! Plans the pushes to a dependent from the lists that it has acknowledged. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use hubspoke_protocol::{PushMode, Revision, ServiceInfo};

use crate::catalog::{Catalog, InstanceList, ListedInstance};

/// The state that a dependent has acknowledged.
#[derive(Debug, Clone)]
pub(super) enum Acknowledged {
    /// In `snapshot` mode: everything up to this revision.
    Revision(u64),
    /// In `event` mode: these lists, which are shared with the catalogue and other dependents.
    Lists(BTreeMap<Arc<str>, Arc<InstanceList>>),
}

/// The requests to send. Each must be acknowledged before the next is sent.
#[derive(Debug)]
pub(super) struct PushPlan {
    pub(super) requests: Vec<PushRequest>,
    /// The acknowledged state once all are acknowledged.
    pub(super) then: Acknowledged,
    /// The newest revision of that state.
    pub(super) revision: u64,
}

/// One request.
#[derive(Debug, Clone)]
pub(super) struct PushRequest {
    pub(super) method: Method,
    /// The body, in parts that are shared with requests to other dependents.
    pub(super) body: Vec<Bytes>,
    /// In `event` mode: the service, and the instance that is added or removed.
    subject: Option<(Arc<str>, Arc<ListedInstance>)>,
}

impl Acknowledged {
    /// The state after the reply to its registration.
    pub(super) fn by_reply(
        info: &ServiceInfo,
        revision: u64,
        lists: &[(Arc<str>, Arc<InstanceList>)],
    ) -> Self {
        match info.push() {
            PushMode::Snapshot => Self::Revision(revision),
            PushMode::Event => Self::Lists(lists.iter().cloned().collect()),
        }
    }

    /// The state if only the first `count` requests of a plan were acknowledged.
    pub(super) fn after(&self, plan: &PushPlan, count: usize) -> Self {
        let Self::Lists(lists) = self else { return self.clone() };
        let mut changes: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for request in plan.requests.iter().take(count) {
            if let Some((name, listed)) = &request.subject {
                changes.entry(name).or_default().push((listed, request.method == Method::POST));
            }
        }
        let mut lists = lists.clone();
        for (name, changes) in changes {
            let list = lists.entry(name.clone()).or_default();
            *list = Arc::new(list.with(changes));
        }
        Self::Lists(lists)
    }
}

/// The requests to send now; `None` if the dependent is up to date.
pub(super) fn plan(
    catalog: &mut Catalog,
    info: &ServiceInfo,
    acknowledged: &Acknowledged,
    revision_of: impl Fn(u64) -> Revision,
) -> Option<PushPlan> {
    let plan = match acknowledged {
        Acknowledged::Revision(since) => snapshot(catalog, info, *since, revision_of),
        Acknowledged::Lists(known) => events(catalog, info, known),
    };
    Some(plan).filter(|plan| !plan.requests.is_empty())
}

fn snapshot(
    catalog: &mut Catalog,
    info: &ServiceInfo,
    since: u64,
    revision_of: impl Fn(u64) -> Revision,
) -> PushPlan {
    // If the changed lists do not suffice, nothing is sent. The next heartbeat shows the member that it is behind, and
    // the reply to its renewal has all lists.
    let lists = catalog.changed_lists(info, since).unwrap_or_default();
    let revision = lists.iter().map(|(_, list)| list.revision).max().unwrap_or(since);
    let mut requests = Vec::new();
    if !lists.is_empty() {
        let mut body =
            vec![Bytes::from(format!(r#"{{"Revision":"{}","Services":{{"#, revision_of(revision)))];
        for (i, (name, list)) in lists.iter().enumerate() {
            // A valid name needs no escaping in JSON.
            body.push(Bytes::from(format!(r#"{}"{name}":"#, if i > 0 { "," } else { "" })));
            body.push(list.json().clone());
        }
        body.push(Bytes::from_static(b"}}"));
        requests.push(PushRequest { method: Method::PUT, body, subject: None });
    }
    PushPlan { requests, then: Acknowledged::Revision(revision), revision }
}

fn events(
    catalog: &mut Catalog,
    info: &ServiceInfo,
    known: &BTreeMap<Arc<str>, Arc<InstanceList>>,
) -> PushPlan {
    let now: BTreeMap<_, _> = catalog.lists(info).into_iter().collect();
    let empty = Arc::new(InstanceList::default());
    let mut requests = Vec::new();
    // A service that has been forgotten has no instances left.
    let forgotten = known.iter().filter(|(name, _)| !now.contains_key(*name)).map(|(name, _)| (name, &empty));
    for (name, list) in now.iter().chain(forgotten) {
        let before = known.get(name).unwrap_or(&empty);
        if !Arc::ptr_eq(before, list) {
            diff(name, before, list, &mut requests);
        }
    }
    let revision = now.values().map(|list| list.revision).max().unwrap_or(0);
    PushPlan { requests, then: Acknowledged::Lists(now), revision }
}

/// Additions first and removals last, so that no list is empty in between. A replaced instance is removed and added,
/// since members that know only the core protocol identify instances by address alone.
fn diff(name: &Arc<str>, before: &InstanceList, after: &InstanceList, requests: &mut Vec<PushRequest>) {
    let request = |method, listed: &Arc<ListedInstance>| PushRequest {
        method,
        body: vec![listed.json().clone()],
        subject: Some((name.clone(), listed.clone())),
    };
    let mut removed = Vec::new();
    let mut replaced = Vec::new();
    let mut old = before.plain().peekable();
    for new in after.plain() {
        // Most instances are unchanged.
        if old.next_if(|old| Arc::ptr_eq(old, new)).is_some() {
            continue;
        }
        while let Some(old) = old.next_if(|old| old.addr() < new.addr()) {
            removed.push(request(Method::DELETE, old));
        }
        match old.next_if(|old| old.addr() == new.addr()) {
            None => requests.push(request(Method::POST, new)),
            Some(old) if old.same_plain(new) => {}
            Some(old) => replaced.extend([request(Method::DELETE, old), request(Method::POST, new)]),
        }
    }
    removed.extend(old.map(|old| request(Method::DELETE, old)));
    requests.extend(replaced);
    requests.extend(removed);
}
