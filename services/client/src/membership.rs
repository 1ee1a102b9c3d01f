//! Membership: a member registers, renews, answers heartbeats, takes pushes, and deregisters.
//!
//! [`Member::routes`] goes into the member's own server and must be served before [`Member::run`] starts, since
//! the registry may call back at once. One task runs [`Member::run`]; nothing else registers, so replies come in
//! order. Which kind of registry is on the other side shows in its last reply: one that stamps a `Hub-Revision`
//! is renewed with every 15 s and at once when a heartbeat shows that we are behind; one that knows only the core
//! would list us twice, so we register again only when it has been silent for 90 s.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use rand::RngExt;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::directory::Directory;
use crate::load::LoadCounters;
use hubspoke_protocol::{InvalidInfo, PushMode, Revision, SERVICES_PATH, ServiceInfo};

mod advertise;
mod api;
mod call;

pub use self::advertise::{Advertise, Reach};
pub use self::call::CallError;

/// How often and how patiently a member speaks to the registry.
#[derive(Debug, Clone)]
pub struct Timing {
    /// A renewal is due this long after the last, less up to a quarter at random.
    pub renew: Duration,
    /// A core-only registry is registered with again after this long without a heartbeat.
    pub silence: Duration,
    /// One call to the registry may take this long.
    pub timeout: Duration,
    /// Pause after a first failed call; doubles, with jitter.
    pub backoff: Duration,
    /// Longest pause after failed calls.
    pub backoff_max: Duration,
    /// After a registry has lost its state, instances that it knows no more are kept for this long: longer than
    /// `renew`, so that each has had its chance to come back.
    pub keep: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            renew: Duration::from_secs(15),
            silence: Duration::from_secs(90),
            timeout: Duration::from_secs(5),
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(2),
            keep: Duration::from_secs(20),
        }
    }
}

/// What a member needs to take part.
#[derive(Debug, Clone)]
pub struct MemberConfig {
    /// The registry's base URL: `http://127.0.0.1:20000`.
    pub registry: String,
    /// Bearer token for registering, where the registry asks for one.
    pub token: Option<String>,
    /// What to register. `addr` and `control_addr` are taken from `advertise`, `push` and `push_key` are set by
    /// [`Member::new`].
    pub info: ServiceInfo,
    /// Under which addresses.
    pub advertise: Advertise,
    /// How often and how patiently.
    pub timing: Timing,
}

/// This process's membership of one service. Cloning shares it.
#[derive(Clone)]
pub struct Member(Arc<Inner>);

struct Inner {
    config: MemberConfig,
    /// What was registered last: `config.info` with addresses and push key.
    registered: Mutex<Arc<ServiceInfo>>,
    push_key: String,
    directory: Directory,
    load: LoadCounters,
    http: reqwest::Client,
    url: String,
    /// The registry's last reply carried no revision.
    core_only: AtomicBool,
    joined: watch::Sender<bool>,
    /// Why the last call to register failed; `None` where it did not.
    failing: watch::Sender<Option<Arc<CallError>>>,
    /// Something showed that we are behind: renew now.
    behind: Notify,
    last_heartbeat: Mutex<Instant>,
}

impl Member {
    /// Prepares a membership; nothing is sent before [`Member::run`].
    ///
    /// # Errors
    /// [`NewMemberError`] where a name or address is invalid or the URL is none.
    pub fn new(config: MemberConfig, load: LoadCounters) -> Result<Self, NewMemberError> {
        config.advertise.check(&config.info)?;
        let url = format!("{}{SERVICES_PATH}", config.registry.trim_end_matches('/'));
        if !is_registry_url(&config.registry) {
            return Err(NewMemberError::Url(config.registry));
        }
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(config.timing.timeout)
            .timeout(config.timing.timeout)
            .pool_max_idle_per_host(0) // a call every 15 s is not worth a connection kept open
            .build()
            .map_err(NewMemberError::Client)?;
        let push_key = format!("{:032x}", rand::rng().random::<u128>());
        let registered = Mutex::new(Arc::new(config.info.clone()));
        Ok(Self(Arc::new(Inner {
            config,
            registered,
            push_key,
            directory: Directory::default(),
            load,
            http,
            url,
            core_only: AtomicBool::new(false),
            joined: watch::Sender::new(false),
            failing: watch::Sender::new(None),
            behind: Notify::new(),
            last_heartbeat: Mutex::new(Instant::now()),
        })))
    }

    /// `GET /heart-beat` and `POST`, `DELETE`, `PUT /services`, for the server on the control address.
    pub fn routes(&self) -> Router {
        api::routes(self.clone())
    }

    /// The instances of the services that this member requires.
    pub fn directory(&self) -> &Directory {
        &self.0.directory
    }

    /// What this member registered last; before the first registration its addresses may be missing.
    pub fn info(&self) -> Arc<ServiceInfo> {
        self.0.registered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the registry knows this member, as far as it can tell; false until the first registration.
    pub fn joined(&self) -> watch::Receiver<bool> {
        self.0.joined.subscribe()
    }

    /// Why the last call to register or to renew failed; `None` where it did not.
    pub fn failing(&self) -> watch::Receiver<Option<Arc<CallError>>> {
        self.0.failing.subscribe()
    }

    /// Registers, and stays registered until `stop` is done. A call that is under way is finished first (at most
    /// [`Timing::timeout`]), so that it can't overtake the deregistration that follows.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut failures: u32 = 0;
        let mut forget_at = None;
        loop {
            match self.register().await {
                Ok(other_epoch) => {
                    if other_epoch {
                        forget_at = Some(Instant::now() + self.0.config.timing.keep);
                    }
                    if failures > 0 {
                        tracing::info!(registry = %self.0.config.registry, "the registry is back");
                    }
                    failures = 0;
                    self.0.failing.send_replace(None);
                }
                Err(error) => {
                    let error = Arc::new(error);
                    let before = self.0.failing.send_replace(Some(error.clone()));
                    // Said once, and again where it is something else: that one is refused now is news.
                    if !before.is_some_and(|before| before.is_like(&error)) {
                        tracing::warn!(
                            registry = %self.0.config.registry,
                            error = &*error as &dyn std::error::Error,
                            "can't register; trying again until it works"
                        );
                    }
                    failures = failures.saturating_add(1);
                }
            }
            let due = self.next_registration_due(failures);
            tokio::pin!(due);
            loop {
                tokio::select! {
                    () = &mut stop => return,
                    () = &mut due => break,
                    () = until(forget_at) => {
                        self.0.directory.forget();
                        forget_at = None;
                    }
                }
            }
        }
    }

    async fn next_registration_due(&self, failures: u32) {
        if failures > 0 {
            tokio::time::sleep(self.backoff(failures)).await;
        } else if self.0.core_only.load(Relaxed) {
            tokio::select! {
                () = self.silence() => {}
                // The registry was replaced by one that stamps revisions.
                () = self.0.behind.notified() => {}
            }
        } else {
            let renew = self.0.config.timing.renew;
            let due = rand::rng().random_range(renew.mul_f64(0.75)..=renew);
            tokio::select! {
                () = tokio::time::sleep(due) => {}
                () = self.0.behind.notified() => self.spread().await,
            }
        }
    }

    /// A change that concerns many members shows in all their heartbeats: they must not renew in one instant, and
    /// the push that is on its way may come first.
    async fn spread(&self) {
        let most = Duration::from_millis(200).min(self.0.config.timing.renew);
        let pause = rand::rng().random_range(Duration::ZERO..=most);
        tokio::time::sleep(pause).await;
    }

    async fn silence(&self) {
        loop {
            let silent_until = *self.last_heartbeat() + self.0.config.timing.silence;
            if silent_until <= Instant::now() {
                *self.last_heartbeat() = Instant::now(); // the next round starts now
                return;
            }
            tokio::time::sleep_until(silent_until).await;
        }
    }

    fn backoff(&self, failures: u32) -> Duration {
        let timing = &self.0.config.timing;
        let doubled = timing.backoff.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.min(timing.backoff_max).mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// Says whether the registry is of another epoch than before.
    async fn register(&self) -> Result<bool, CallError> {
        let (addr, control_addr) = self.0.config.advertise.resolve(&self.0.config.registry).await?;
        let info = Arc::new(ServiceInfo {
            addr,
            control_addr,
            push: Some(PushMode::Snapshot),
            push_key: Some(self.0.push_key.clone()),
            ..self.0.config.info.clone()
        });
        *self.0.registered.lock().unwrap_or_else(PoisonError::into_inner) = info.clone();
        self.0.directory.registering();
        match call::register(&self.0, &info).await {
            Ok((lists, revision)) => {
                self.0.core_only.store(revision.is_none(), Relaxed);
                let other_epoch = self.0.directory.registered(lists, revision);
                if !self.0.joined.send_replace(true) {
                    tracing::info!(service = info.name, addr = info.addr, "registered");
                }
                Ok(other_epoch)
            }
            Err(error) => {
                self.0.directory.not_registered();
                Err(error)
            }
        }
    }

    /// Takes this member out of the catalogue; the registry answers once dependents know, or after 1 s. Call it
    /// after [`Member::run`] has ended.
    ///
    /// # Errors
    /// [`CallError`] where the registry could not be asked or refused; it will then notice by heartbeat.
    pub async fn deregister(&self) -> Result<(), CallError> {
        call::deregister(&self.0, &self.info()).await?;
        self.0.joined.send_replace(false);
        Ok(())
    }

    /// A heartbeat came, stamped with what the registry holds to be our newest revision.
    fn heard(&self, stamp: Option<Revision>) {
        *self.last_heartbeat() = Instant::now();
        let Some(stamp) = stamp else { return };
        let ours = self.0.directory.view().revision();
        if !ours.is_some_and(|ours| ours.epoch == stamp.epoch && ours.n >= stamp.n) {
            self.0.behind.notify_one();
        }
    }

    fn last_heartbeat(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.0.last_heartbeat.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a text is the base URL of a registry: `http://host:port`, perhaps with a path.
pub fn is_registry_url(text: &str) -> bool {
    reqwest::Url::parse(text).is_ok_and(|url| {
        url.scheme() == "http"
            && url.has_host()
            && url.port() != Some(0)
            && url.username().is_empty()
            && url.query().is_none()
            && url.fragment().is_none()
    })
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Why a membership can't even be prepared.
#[derive(Debug, thiserror::Error)]
pub enum NewMemberError {
    /// A name or an address is invalid.
    #[error(transparent)]
    Info(#[from] InvalidInfo),
    /// The registry's URL is none.
    #[error("{0:?} is no registry URL: http://host:port")]
    Url(String),
    /// The HTTP client could not be made.
    #[error("can't make an HTTP client")]
    Client(#[source] reqwest::Error),
}

#[cfg(test)]
mod tests;
