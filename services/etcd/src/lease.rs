//! A key that etcd keeps as long as it hears of this process.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use crate::auth::AuthSession;
use crate::client::Etcd;
use crate::connection::Connection;
use crate::error::{Error, Kind};
use crate::proto::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest,
    LeaseRevokeResponse,
};
use crate::rpc::Method;
use crate::txn::{Op, Txn};

/// A lease that nobody uses ends by itself, so granting one may be repeated.
const GRANT: Method = Method::read("/etcdserverpb.Lease/LeaseGrant");
const REVOKE: Method = Method::write("/etcdserverpb.Lease/LeaseRevoke");
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
/// Pause after a failure.
const PAUSE: Duration = Duration::from_millis(200);

/// Keeps a key under a lease in a task of its own; granted anew after it was lost. Dropping it stops the task, and etcd
/// removes the key when the lease expires; [`Lease::close`] removes it at once.
#[derive(Debug)]
pub struct Lease {
    state: watch::Receiver<LeaseState>,
    value: watch::Sender<Bytes>,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

/// Whether the key is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    /// Not granted yet, expired, or etcd was not reached for so long that it may have expired.
    Lost,
    /// The key is there.
    Held {
        /// The lease, for [`Compare::lease`](crate::Compare::lease).
        lease: i64,
        /// The revision at which the key was written under this lease.
        revision: i64,
    },
}

impl LeaseState {
    /// The lease, if it is held.
    pub fn held(self) -> Option<i64> {
        match self {
            Self::Held { lease, .. } => Some(lease),
            Self::Lost => None,
        }
    }
}

impl Lease {
    /// Starts to keep a key with this value.
    pub fn start(etcd: &Etcd, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::spawn(etcd, key.into(), value.into())
    }

    fn spawn(etcd: &Etcd, key: Bytes, value: Bytes) -> Self {
        let (state_sender, state) = watch::channel(LeaseState::Lost);
        let (value, values) = watch::channel(value);
        let stop = CancellationToken::new();
        // Each of the few calls within a lease has a third of it.
        let etcd = etcd.within(etcd.limit.min(etcd.lease / 3));
        let keeper = Keeper { etcd, key, values, state: state_sender };
        let task = AbortOnDropHandle::new(tokio::spawn(keeper.run(stop.clone())));
        Self { state, value, stop, task }
    }

    /// The state, and each change of it.
    pub fn state(&self) -> watch::Receiver<LeaseState> {
        self.state.clone()
    }

    /// The lease, if it is held.
    pub fn held(&self) -> Option<i64> {
        self.state.borrow().held()
    }

    /// Changes the key's value, now if the lease is held, else when it is.
    pub fn set(&self, value: impl Into<Bytes>) {
        self.value.send_replace(value.into());
    }

    /// Removes the key, and stops. Returns after a third of the lease at most.
    pub async fn close(self) {
        self.stop.cancel();
        let _ = self.task.await; // fails if the runtime shuts down
    }
}

struct Keeper {
    etcd: Etcd,
    key: Bytes,
    values: watch::Receiver<Bytes>,
    state: watch::Sender<LeaseState>,
}

/// A lease that was granted.
struct Grant {
    id: i64,
    ttl: Duration,
    /// Until then etcd has it, whatever happens.
    until: Instant,
}

impl Keeper {
    async fn run(mut self, stop: CancellationToken) {
        let mut lease = None;
        let _ = stop.run_until_cancelled(self.keep(&mut lease)).await;
        self.state.send_replace(LeaseState::Lost);
        if let Some(id) = lease {
            let revoked = self.etcd.rpc.unary(REVOKE, LeaseRevokeRequest { id }, self.etcd.limit).await;
            if let Err(error) = revoked.map(|LeaseRevokeResponse {}| ()) {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "can't revoke the lease; its key is removed when it expires");
            }
        }
    }

    /// Never ends. `lease` is what is to be revoked at the end.
    async fn keep(&mut self, lease: &mut Option<i64>) {
        loop {
            *lease = None;
            let Some(mut grant) = self.log_failure("grant a lease", self.grant().await) else {
                sleep(PAUSE).await;
                continue;
            };
            *lease = Some(grant.id);
            self.hold(&mut grant).await;
            self.set_state(LeaseState::Lost);
        }
    }

    /// Returns when the lease is gone.
    async fn hold(&mut self, grant: &mut Grant) {
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = sleep_until(next.min(grant.until.max(Instant::now() + PAUSE))) => {}
                Ok(()) = self.values.changed() => {}
            }
            if Instant::now() >= grant.until {
                self.set_state(LeaseState::Lost);
            }
            let sent = Instant::now();
            let kept = match self.keep_alive(grant.id).await {
                Ok(0) => return,
                Ok(_) => {
                    grant.until = sent + grant.ttl;
                    self.ensure_key(grant.id).await
                }
                Err(error) => Err(error),
            };
            match kept {
                Ok(revision) if Instant::now() < grant.until => {
                    self.set_state(LeaseState::Held { lease: grant.id, revision });
                    next = sent + grant.ttl / 3;
                }
                Ok(_) => next = Instant::now(),
                // The lease was found a moment ago, and is not there any more.
                Err(Error::Refused(cause)) if cause.to_string().contains("lease not found") => return,
                Err(error) => {
                    self.log_failure::<()>("keep the lease", Err(error));
                    next = Instant::now() + PAUSE;
                }
            }
        }
    }

    async fn grant(&self) -> Result<Grant, Error> {
        let sent = Instant::now();
        let ttl = i64::try_from(self.etcd.lease.as_secs()).unwrap_or(i64::MAX);
        let granted: LeaseGrantResponse =
            self.etcd.rpc.unary(GRANT, LeaseGrantRequest { ttl }, self.etcd.limit).await?;
        let ttl = Duration::from_secs(u64::try_from(granted.ttl).unwrap_or(0).max(1));
        Ok(Grant { id: granted.id, ttl, until: sent + ttl })
    }

    /// The time that the lease has left, in seconds; 0 if it is gone.
    async fn keep_alive(&self, id: i64) -> Result<i64, Error> {
        let call = |connection: Connection, session: AuthSession| async move {
            let (sender, requests) = mpsc::channel(1);
            let _ = sender.try_send(LeaseKeepAliveRequest { id }); // it is empty
            let mut responses = connection
                .streaming::<_, LeaseKeepAliveResponse>(KEEP_ALIVE, requests, session.token.as_ref())
                .await?;
            let response = responses.message().await?;
            response.ok_or_else(|| Status::unavailable("the stream ended without an answer"))
        };
        let response = self.etcd.rpc.repeat(Kind::Read, self.etcd.limit, call).await?;
        Ok(response.ttl)
    }

    /// Writes the key unless it is there as it should be: somebody may have deleted it. Returns its revision.
    async fn ensure_key(&mut self, lease: i64) -> Result<i64, Error> {
        let value = self.values.borrow_and_update().clone();
        if let Some(kv) = self.etcd.get(&self.key).await?
            && (kv.lease, &kv.value) == (lease, &value)
        {
            return Ok(kv.mod_revision);
        }
        let put = Op::put_leased(&self.key, value, lease);
        Ok(self.etcd.txn(Txn::new().then(put)).await?.revision)
    }

    fn set_state(&self, state: LeaseState) {
        self.state.send_if_modified(|current| std::mem::replace(current, state) != state);
    }

    /// The owner sees the state; why it is so is for whoever looks closely.
    fn log_failure<T>(&self, what: &str, result: Result<T, Error>) -> Option<T> {
        result
            .inspect_err(|error| {
                let error = error as &dyn std::error::Error;
                tracing::debug!(error, "can't {what}; tried again");
            })
            .ok()
    }
}
