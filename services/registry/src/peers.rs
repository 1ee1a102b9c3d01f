//! The other registries that share the store: what they know is shown here, too, and they are asked before an instance is
//! removed.
//!
//! Each registry asks each other one all the time for the heartbeats that were answered there since: name, address, `Id`,
//! age and load of each, in batches that are rendered once for all who ask. States and removals need none of that, since
//! they are in the store. The question is held for half a second, so a registry that dies is noticed at once: whoever
//! can't reach it does its work, too. If it is only the way between the two that is broken, both do it, which is harmless:
//! for a removal the leases count.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::Full;
use hubspoke_client::Token;
use hubspoke_protocol::{Heartbeat, REGISTRY_SERVICE};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::catalog::{InstanceKey, Split};
use crate::cluster::{Registries, Status};
use crate::dispatch::Dispatcher;
use crate::exchange::{Callee, IdleConn};
use crate::findings::{
    ACKNOWLEDGED_PATH, AcknowledgedQuery, Findings, HEARD_PATH, PROBE_PATH, ProbeQuery, ProbeReply,
};

/// Pause before a registry that did not answer is asked again.
const PAUSE: Duration = Duration::from_millis(500);
/// How long they may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Members of a registry that is gone have been told everything that is older than its lease and this.
const PUSH_TIME: Duration = Duration::from_secs(5);
/// Largest reply that is read, in bytes: 100,000 instances take about 10 MB.
const MAX_REPLY: usize = 32 << 20;
/// What a registry that does not answer has found counts for so long.
const MAX_AGE: Duration = Duration::from_secs(10);

/// What another registry says about an instance.
#[derive(Debug)]
pub(crate) enum Opinion {
    /// It answers there.
    Alive(Option<Heartbeat>),
    /// It does not, or there is nobody to ask.
    None,
}

/// The other registries.
#[derive(Debug)]
pub(crate) struct Peers {
    own: Arc<str>,
    status: Arc<Status>,
    dispatcher: Arc<Dispatcher>,
    token: Option<Token>,
    /// How long the key of a registry outlives it.
    lease: Duration,
    asked: Mutex<HashMap<Arc<str>, Asked>>,
    changed: Notify,
    /// The last split.
    split: Mutex<Option<Split>>,
}

/// One registry that is asked.
#[derive(Debug, Default)]
struct Asked {
    /// The first batch to ask for.
    next: u64,
    /// How many instances it finds failing, and when it said so.
    failing: Option<(Instant, usize)>,
    idle: Option<IdleConn>,
    /// It did not answer when it was last asked.
    is_silent: bool,
}

impl Peers {
    pub(crate) fn new(
        own: Arc<str>,
        status: Arc<Status>,
        dispatcher: Arc<Dispatcher>,
        token: Option<Token>,
        lease: Duration,
    ) -> Self {
        let (asked, split) = (Mutex::default(), Mutex::default());
        Self { own, status, dispatcher, token, lease, asked, changed: Notify::new(), split }
    }

    /// Asks the others, as long as they live. Returns only on errors.
    ///
    /// # Errors
    /// If one of its tasks panicked.
    pub(crate) async fn run(self: Arc<Self>) -> Result<(), JoinError> {
        let (mut asking, mut asked) = (JoinSet::new(), HashSet::new());
        loop {
            for (id, record) in self.others() {
                if asked.insert(id.clone()) {
                    asking.spawn(self.clone().ask(id, record.addr));
                }
            }
            tokio::select! {
                () = self.changed.notified() => {}
                Some(ended) = asking.join_next() => drop(asked.remove(&ended?)),
            }
        }
    }

    /// These registries live, as etcd has it. `revision` is what members have been told at least.
    pub(crate) fn set_registries(&self, registries: &Registries, revision: u64) {
        self.status.set_registries(registries.clone());
        self.asked.lock().retain(|id, _| registries.contains_key(id));
        self.resplit(revision);
        self.changed.notify_one();
    }

    /// Takes over what is up to registries that are gone or silent, and hands over what is up to others.
    fn resplit(&self, revision: u64) {
        let mut live = self.others();
        live.retain(|id, _| !self.asked.lock().get(id).is_some_and(|asked| asked.is_silent));
        let split = Split::new(self.own.clone(), live.into_keys());
        let mut last = self.split.lock();
        if last.as_ref() != Some(&split) {
            let since = self.status.revision_before(self.lease + PUSH_TIME).unwrap_or(revision);
            *last = Some(split.clone());
            self.dispatcher.split(split, since);
        }
    }

    /// Asks another registry to send a heartbeat to an instance.
    pub(crate) async fn second_opinion(&self, key: &InstanceKey) -> Opinion {
        let second = self.dispatcher.catalog.with(|catalog, _| catalog.second(key));
        let record = second.and_then(|id| self.status.registries().get(&id).cloned());
        let Some(record) = record else { return Opinion::None };
        let query = ProbeQuery { name: key.name.to_string(), addr: key.addr.to_string() };
        match self.call::<ProbeReply>(&record.addr, Method::POST, PROBE_PATH, &query, None, TIMEOUT).await {
            Some((ProbeReply { alive: true, heartbeat }, _)) => Opinion::Alive(heartbeat),
            _ => Opinion::None,
        }
    }

    /// Waits until the dependents of the other registries have acknowledged a service's list of this revision.
    pub(crate) async fn acknowledged(self: &Arc<Self>, name: &str, revision: u64, within: Duration) {
        let millis = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let query = AcknowledgedQuery { name: name.to_owned(), revision, wait_ms: millis };
        let mut asking = JoinSet::new();
        for record in self.others().into_values() {
            let (peers, query) = (self.clone(), query.clone());
            asking.spawn(async move {
                let asked = peers.call::<IgnoredAny>(
                    &record.addr,
                    Method::POST,
                    ACKNOWLEDGED_PATH,
                    &query,
                    None,
                    within,
                );
                asked.await.is_some()
            });
        }
        asking.join_all().await;
    }

    /// How many instances the others find failing.
    fn failing(&self) -> usize {
        let asked = self.asked.lock();
        let recent = |asked: &Asked| asked.failing.filter(|(at, _)| at.elapsed() < MAX_AGE);
        asked.values().filter_map(recent).map(|(_, failing)| failing).sum()
    }

    fn others(&self) -> Registries {
        let mut others = Registries::clone(&self.status.registries());
        others.remove(&self.own);
        others
    }

    /// Asks a registry until it is gone; returns its id.
    async fn ask(self: Arc<Self>, id: Arc<str>, addr: String) -> Arc<str> {
        while self.others().contains_key(&id) {
            let is_silent = !self.fetch(&id, &addr).await;
            let was_silent = {
                let mut asked = self.asked.lock();
                let asked = asked.entry(id.clone()).or_default();
                std::mem::replace(&mut asked.is_silent, is_silent)
            };
            if was_silent != is_silent {
                self.resplit(0);
            }
            self.dispatcher.failing_elsewhere(self.failing());
            if is_silent {
                tokio::time::sleep(PAUSE).await;
            }
        }
        id
    }

    /// Fetches what a registry has heard since it was last asked; returns whether it answered.
    async fn fetch(&self, id: &Arc<str>, addr: &str) -> bool {
        let (next, idle) = {
            let mut asked = self.asked.lock();
            let asked = asked.entry(id.clone()).or_default();
            (asked.next, asked.idle.take())
        };
        let path = format!("{HEARD_PATH}?from={next}");
        let reply = self.call::<Findings>(addr, Method::GET, &path, &(), idle, TIMEOUT).await;
        let Some((findings, idle)) = reply else { return false };
        if let Some(asked) = self.asked.lock().get_mut(id) {
            asked.next = findings.next;
            asked.idle = idle;
            asked.failing = Some((Instant::now(), findings.failing));
        }
        self.dispatcher.heard(findings);
        true
    }

    async fn call<T: DeserializeOwned>(
        &self,
        addr: &str,
        method: Method,
        path: &str,
        body: &impl Serialize,
        idle: Option<IdleConn>,
        timeout: Duration,
    ) -> Option<(T, Option<IdleConn>)> {
        let body = if method == Method::GET { Vec::new() } else { serde_json::to_vec(body).ok()? };
        let body = Bytes::from(body);
        let request = || {
            let mut request = Request::new(Full::new(body.clone()));
            *request.method_mut() = method.clone();
            *request.uri_mut() = path.parse().unwrap_or_default(); // all paths are valid
            let bearer = self.token.as_ref().map(|token| format!("Bearer {}", token.get()));
            let headers = request.headers_mut();
            for (name, value) in [(header::HOST, Some(addr.to_owned())), (header::AUTHORIZATION, bearer)] {
                if let Some(Ok(value)) = value.map(HeaderValue::try_from) {
                    headers.insert(name, value);
                }
            }
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            request
        };
        let to = Callee { name: REGISTRY_SERVICE, addr };
        let reply = self.dispatcher.dialer.send(to, idle, request, MAX_REPLY, timeout).await;
        match reply {
            Ok(reply) if reply.status.is_success() => {
                let value = serde_json::from_slice(&reply.body.filter(|body| !body.is_empty())?).ok()?;
                Some((value, reply.idle))
            }
            Ok(reply) => {
                tracing::warn!(addr, status = %reply.status, path, "another registry refused a call");
                None
            }
            Err(error) => {
                let reason = error.reason();
                tracing::debug!(addr, reason, path, "another registry can't be reached");
                None
            }
        }
    }
}
