//! Membership: a member registers, renews, answers heartbeats, receives pushes and deregisters.
//!
//! One task runs [`Member::run`]; nothing else registers, so the registry's answers arrive in order. The last answer
//! tells which kind of registry this is. One that stamps its answers with `Hub-Revision` gets a renewal every 15 s,
//! and at once when a heartbeat shows that the directory is out of date. One that knows only the core protocol would
//! list a renewing member twice, so the member registers again only after 90 s without a heartbeat.
//!
//! There may be several registries, all of one platform. The one that answered last is asked; if it fails, the next one
//! is, and then stays. Their revisions are comparable, so the directory keeps what it knows.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::Router;
use hubspoke_protocol::{PushMode, ServiceInfo};
use rand::RngExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use self::registry::RegistryClient;
use self::state::MemberState;
use self::targets::Target;
use crate::directory::Directory;
use crate::load::LoadCounters;

pub use self::advertise::{Advertise, Families, Reach, default_route_ip};
pub use self::config::{MemberConfig, MemberError, Timing};
pub use self::registry::RegistryError;
pub use self::url::{InvalidUrl, RegistryUrls, check_registry_url};

mod advertise;
mod config;
mod registry;
mod routes;
mod state;
mod targets;
mod url;

/// When many members are out of date at once, their renewals are spread over this time. It also lets a push arrive
/// first, which makes the renewal cheap.
const RENEWAL_SPREAD: Duration = Duration::from_millis(200);

/// The membership of this process in one service. Clones share it.
///
/// The order matters: serve [`Member::routes`] before [`Member::run`] starts, since the registry calls back at once,
/// and call [`Member::deregister`] after it has ended.
///
/// ```
/// use std::time::Duration;
///
/// use hubspoke_client::membership::MemberConfig;
/// use hubspoke_client::{LoadCounters, Member};
/// use hubspoke_protocol::ServiceInfo;
/// use tokio::net::TcpListener;
/// use tokio::sync::oneshot;
/// # use hubspoke_testkit::{FakeRegistry, eventually};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let registry = FakeRegistry::start().await;
/// # registry.set("log", &[ServiceInfo::new("log", "127.0.0.1:20002")]);
/// # let registry_url = registry.url();
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let info = ServiceInfo {
///     required_services: vec!["log".to_owned()],
///     ..ServiceInfo::new("greeter", listener.local_addr()?.to_string())
/// };
/// let mut config = MemberConfig::new(registry_url, info);
/// config.timing.timeout = Duration::from_secs(2);
/// let member = Member::new(config, LoadCounters::default())?;
/// let routes = member.routes();
/// tokio::spawn(async { axum::serve(listener, routes).await });
///
/// let (stop, stopped) = oneshot::channel::<()>();
/// let running = tokio::spawn({
///     let member = member.clone();
///     async move { member.run(async { drop(stopped.await) }).await }
/// });
/// member.joined().wait_for(|joined| *joined).await?;
/// assert_eq!(member.directory().view().instances("log").map(<[_]>::len), Some(1));
///
/// # registry.publish("log", &[]).await;
/// # assert_eq!(member.directory().pick("log"), None);
/// drop(stop);
/// running.await?;
/// member.deregister().await?;
/// # assert_eq!(registry.methods(), ["POST", "DELETE"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Member {
    config: Arc<MemberConfig>,
    registry: Arc<RegistryClient>,
    state: Arc<MemberState>,
}

impl Member {
    /// Creates a membership; nothing is sent before [`Member::run`].
    ///
    /// # Errors
    /// [`MemberError`] if a name, an address or the registry's URL is invalid.
    pub fn new(config: MemberConfig, load: LoadCounters) -> Result<Self, MemberError> {
        config.advertise.check(&config.info)?;
        let registry = Arc::new(RegistryClient::new(&config)?);
        let state = Arc::new(MemberState::new(config.info.clone(), load));
        Ok(Self { config: Arc::new(config), registry, state })
    }

    /// `GET /heart-beat`, `GET /directory` and the pushes (`POST`, `DELETE` and `PUT /services`), for the server on
    /// the control address.
    pub fn routes(&self) -> Router {
        routes::routes(self.state.clone())
    }

    /// The instances of the services that this member requires.
    pub fn directory(&self) -> &Directory {
        &self.state.directory
    }

    /// What this member registered last. Before the first registration, addresses may be missing.
    pub fn info(&self) -> Arc<ServiceInfo> {
        self.state.registered.lock().clone()
    }

    /// Whether this is the key that the registry sends with each push: whoever sends it is the registry. Compared in
    /// constant time.
    pub fn is_push_key(&self, key: &[u8]) -> bool {
        self.state.is_push_key(key)
    }

    /// Whether the registry knows this member: true from the first registration to [`Member::deregister`].
    pub fn joined(&self) -> watch::Receiver<bool> {
        self.state.joined.subscribe()
    }

    /// Why the last registration or renewal failed; `None` if it succeeded, or before the first.
    pub fn failing(&self) -> watch::Receiver<Option<Arc<RegistryError>>> {
        self.state.failing.subscribe()
    }

    /// Registers, and stays registered until `stop` completes. A call in progress is finished first (at most
    /// [`Timing::timeout`]), so that it can't overtake the deregistration.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let registry = self.config.registry.as_str();
        let mut failures: u32 = 0;
        let mut drop_carried_at = None;
        loop {
            match self.register().await {
                Ok(other_epoch) => {
                    if other_epoch {
                        drop_carried_at = Some(Instant::now() + self.config.timing.epoch_grace);
                    }
                    if failures > 0 {
                        tracing::info!(registry, "the registry is back");
                    }
                    failures = 0;
                    self.state.failing.send_replace(None);
                }
                Err(error) => {
                    let error = Arc::new(error);
                    let before = self.state.failing.send_replace(Some(error.clone()));
                    // Logged once, and again when the cause changes.
                    if !before.is_some_and(|before| before.is_like(&error)) {
                        let error = &*error as &dyn Error;
                        tracing::warn!(registry, error, "can't register; retrying until it succeeds");
                    }
                    failures = failures.saturating_add(1);
                }
            }
            let due = self.registration_due(failures);
            tokio::pin!(due);
            loop {
                tokio::select! {
                    () = &mut stop => return,
                    () = &mut due => break,
                    () = at(drop_carried_at) => {
                        self.state.directory.drop_carried();
                        drop_carried_at = None;
                    }
                }
            }
        }
    }

    /// Removes this member from the catalogue. The registry answers when dependents have acknowledged the removal, or
    /// after 1 s.
    ///
    /// # Errors
    /// [`RegistryError`] if the registry could not be reached or refused; it then removes the member when it misses
    /// heartbeats.
    pub async fn deregister(&self) -> Result<(), RegistryError> {
        self.leave(None).await
    }

    /// The same, with a reason for the instance's history, such as "exited with code 3".
    ///
    /// # Errors
    /// As [`deregister`](Self::deregister).
    pub async fn deregister_because(&self, reason: &str) -> Result<(), RegistryError> {
        self.leave(Some(reason)).await
    }

    async fn leave(&self, reason: Option<&str>) -> Result<(), RegistryError> {
        self.ask(|target, limit| self.deregister_at(target, limit, reason)).await?;
        self.state.joined.send_replace(false);
        Ok(())
    }

    /// Completes when the next registration is due.
    async fn registration_due(&self, failures: u32) {
        let timing = &self.config.timing;
        if failures > 0 {
            sleep(crate::backoff(failures, timing.backoff, timing.backoff_max)).await;
        } else if self.state.is_core_only() {
            tokio::select! {
                () = self.silence() => {}
                // A registry that stamps revisions has replaced this one.
                () = self.state.behind.notified() => {}
            }
        } else {
            let due = rand::rng().random_range(timing.renew.mul_f64(0.75)..=timing.renew);
            tokio::select! {
                () = sleep(due) => {}
                () = self.state.behind.notified() => {
                    let spread = rand::rng().random_range(Duration::ZERO..=RENEWAL_SPREAD.min(timing.renew));
                    sleep(spread).await;
                }
            }
        }
    }

    /// Completes when no heartbeat has come for [`Timing::silence`].
    async fn silence(&self) {
        loop {
            let silent_at = *self.state.last_heartbeat.lock() + self.config.timing.silence;
            if silent_at <= Instant::now() {
                *self.state.last_heartbeat.lock() = Instant::now(); // the next period starts now
                return;
            }
            sleep_until(silent_at).await;
        }
    }

    /// Registers once. Returns whether the registry's epoch has changed.
    async fn register(&self) -> Result<bool, RegistryError> {
        self.ask(|target, limit| self.register_at(target, limit)).await
    }

    /// Makes a call to one registry after another until one answers, at most for [`Timing::timeout`]. Each gets a limit
    /// for its call.
    async fn ask<T, F>(&self, call: impl Fn(Target, Duration) -> F) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>>,
    {
        let Timing { timeout, attempt, .. } = self.config.timing;
        let deadline = Instant::now() + timeout;
        let mut round = self.registry.round();
        let mut failure = None;
        while let Ok(Some(target)) = timeout_at(deadline, round.next(attempt)).await {
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = if round.is_over() { left } else { left.min(attempt) };
            let error = match target {
                Ok(target) => match call(target.clone(), limit).await {
                    Err(error) if error.is_local() => error,
                    outcome => {
                        if round.answered(&target) {
                            tracing::info!(registry = %target, "another registry answers now");
                        }
                        return outcome;
                    }
                },
                Err(error) => RegistryError::NoAnswer(error.into()),
            };
            failure = Some(error);
        }
        Err(failure
            .unwrap_or_else(|| RegistryError::NoAnswer(io::Error::from(io::ErrorKind::TimedOut).into())))
    }

    async fn register_at(&self, target: Target, limit: Duration) -> Result<bool, RegistryError> {
        let resolved = self.config.advertise.resolve(&target.addrs).await;
        let (addr, control_addr) = resolved.map_err(RegistryError::Address)?;
        let info = Arc::new(ServiceInfo {
            addr,
            control_addr,
            push: Some(PushMode::Snapshot),
            push_key: Some(self.state.push_key.clone()),
            ..self.config.info.clone()
        });
        *self.state.registered.lock() = info.clone();
        self.state.directory.begin_registration();
        match self.registry.register(&target, limit, &info).await {
            Ok((lists, revision)) => {
                self.state.core_only.store(revision.is_none(), Relaxed);
                let other_epoch = self.state.directory.apply_registration(lists, revision);
                if !self.state.joined.send_replace(true) {
                    tracing::info!(service = info.name, addr = info.addr, "registered");
                }
                Ok(other_epoch)
            }
            Err(error) => {
                self.state.directory.abandon_registration();
                Err(error)
            }
        }
    }

    async fn deregister_at(
        &self,
        target: Target,
        limit: Duration,
        reason: Option<&str>,
    ) -> Result<(), RegistryError> {
        self.registry.deregister(&target, limit, &self.info(), reason).await
    }
}

/// Completes at `time`; never if there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_heartbeat_restarts_the_period_of_silence() {
        let silence = Duration::from_millis(200);
        let mut config = MemberConfig::new("http://127.0.0.1:9", ServiceInfo::new("visit", "127.0.0.1:9"));
        config.timing.silence = silence;
        let member = Member::new(config, LoadCounters::default()).unwrap();
        *member.state.last_heartbeat.lock() = Instant::now() - silence * 3 / 4;
        let ((), heartbeat) = tokio::join!(member.silence(), async {
            let heartbeat = Instant::now();
            member.state.on_heartbeat(None);
            heartbeat
        });
        assert!(heartbeat.elapsed() >= silence, "silent after {:?}", heartbeat.elapsed());
    }
}
