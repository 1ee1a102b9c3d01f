//! What a dependent is to be told, given what it was told before. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use hubspoke_protocol::{PushMode, Revision, ServiceInfo};

use crate::catalog::{Catalog, List, Listed};

/// What a dependent has acknowledged.
#[derive(Debug, Clone)]
pub(super) enum Acked {
    /// In `snapshot` mode: everything up to this revision.
    Revision(u64),
    /// In `event` mode: these lists, shared with whoever else has them.
    Lists(BTreeMap<Arc<str>, Arc<List>>),
}

/// What is to be sent, in order; each must be acknowledged before the next.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) calls: Vec<Call>,
    /// What the dependent knows when all are acknowledged.
    pub(super) then: Acked,
    /// The newest change that it then knows of.
    pub(super) revision: u64,
}

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    /// The body, in parts that are shared with other dependents' calls.
    pub(super) body: Vec<Bytes>,
    /// In `event` mode: the list that it is about, and the instance added or removed.
    subject: Option<(Arc<str>, Arc<Listed>)>,
}

impl Acked {
    /// What a dependent knows that was just answered with these lists.
    pub(super) fn of_reply(info: &ServiceInfo, revision: u64, lists: &[(Arc<str>, Arc<List>)]) -> Self {
        match info.push() {
            PushMode::Snapshot => Self::Revision(revision),
            PushMode::Event => Self::Lists(lists.iter().cloned().collect()),
        }
    }

    /// What it knows when only the first `done` calls of a plan were acknowledged.
    pub(super) fn after(&self, plan: &Plan, done: usize) -> Self {
        let Self::Lists(lists) = self else { return self.clone() };
        let mut lists = lists.clone();
        for call in plan.calls.iter().take(done) {
            let Some((name, listed)) = &call.subject else { continue };
            let list = lists.entry(name.clone()).or_default();
            let added = call.method == Method::POST;
            *list = Arc::new(list.with(listed, added));
        }
        Self::Lists(lists)
    }
}

/// What to send now; `None` where the dependent knows all that concerns it.
pub(super) fn plan(
    catalog: &mut Catalog,
    info: &ServiceInfo,
    acked: &Acked,
    epoch_of: impl Fn(u64) -> Revision,
) -> Option<Plan> {
    let plan = match acked {
        Acked::Revision(since) => snapshot(catalog, info, *since, epoch_of),
        Acked::Lists(known) => events(catalog, info, known),
    };
    Some(plan).filter(|plan| !plan.calls.is_empty())
}

fn snapshot(
    catalog: &mut Catalog,
    info: &ServiceInfo,
    since: u64,
    epoch_of: impl Fn(u64) -> Revision,
) -> Plan {
    // Where changes can't tell it all, nothing is sent: its next heartbeat shows it that it is behind, and the reply
    // to its renewal does.
    let lists = catalog.changed_lists(info, since).unwrap_or_default();
    let revision = lists.iter().map(|(_, list)| list.revision()).max().unwrap_or(since);
    let mut calls = Vec::new();
    if !lists.is_empty() {
        let mut body = vec![Bytes::from(format!(r#"{{"Revision":"{}","Services":{{"#, epoch_of(revision)))];
        for (i, (name, list)) in lists.iter().enumerate() {
            // A valid name holds nothing that JSON would escape.
            body.push(Bytes::from(format!(r#"{}"{name}":"#, if i > 0 { "," } else { "" })));
            body.push(list.json().clone());
        }
        body.push(Bytes::from_static(b"}}"));
        calls.push(Call { method: Method::PUT, body, subject: None });
    }
    Plan { calls, then: Acked::Revision(revision), revision }
}

fn events(catalog: &mut Catalog, info: &ServiceInfo, known: &BTreeMap<Arc<str>, Arc<List>>) -> Plan {
    let now: BTreeMap<_, _> = catalog.lists(info).into_iter().collect();
    let nothing = Arc::new(List::default());
    let mut calls = Vec::new();
    // A service that has been forgotten altogether has no instance either.
    let forgotten =
        known.iter().filter(|(name, _)| !now.contains_key(*name)).map(|(name, _)| (name, &nothing));
    for (name, list) in now.iter().chain(forgotten) {
        let before = known.get(name).unwrap_or(&nothing);
        if !Arc::ptr_eq(before, list) {
            diff(name, before, list, &mut calls);
        }
    }
    let revision = now.values().map(|list| list.revision()).max().unwrap_or(0);
    Plan { calls, then: Acked::Lists(now), revision }
}

/// The new first and the gone last, so that no list runs empty on the way; another start at the same address is
/// removed and added, since old members know instances by address alone.
fn diff(name: &Arc<str>, before: &List, after: &List, calls: &mut Vec<Call>) {
    let call = |method, listed: &Arc<Listed>| Call {
        method,
        body: vec![listed.json().clone()],
        subject: Some((name.clone(), listed.clone())),
    };
    let mut gone = Vec::new();
    let mut replaced = Vec::new();
    let mut old = before.plain().peekable();
    for new in after.plain() {
        // Most of a list is as it was.
        if old.next_if(|old| Arc::ptr_eq(old, new)).is_some() {
            continue;
        }
        while let Some(old) = old.next_if(|old| old.addr() < new.addr()) {
            gone.push(call(Method::DELETE, old));
        }
        match old.next_if(|old| old.addr() == new.addr()) {
            None => calls.push(call(Method::POST, new)),
            Some(old) if old.same_plain(new) => {}
            Some(old) => replaced.extend([call(Method::DELETE, old), call(Method::POST, new)]),
        }
    }
    gone.extend(old.map(|old| call(Method::DELETE, old)));
    calls.extend(replaced);
    calls.extend(gone);
}
