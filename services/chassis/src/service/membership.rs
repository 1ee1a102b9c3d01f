//! Registration and deregistration of a running service.

use std::time::Duration;

use hubspoke_client::{Member, with_causes};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::health::Readiness;

/// How long a stopping member waits for the registry, which answers within 1 s.
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(2);
/// The readiness condition that depends on registration.
const REGISTRY: &str = "registry";

/// A member that registers and renews until it [leaves](Self::leave). Dropping it stops its tasks.
pub(super) struct Membership {
    member: Option<Member>,
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Membership {
    /// Makes `readiness` wait for the registration.
    pub(super) fn pending(readiness: &Readiness) {
        readiness.unmet(REGISTRY, "not registered yet");
    }

    /// Starts to register. Without a member there is nothing to do.
    pub(super) fn start(member: Option<Member>, readiness: Readiness) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        if let Some(member) = member.clone() {
            tasks.spawn(report_registration(member.clone(), readiness));
            tasks.spawn(async move {
                member.run(async move { drop(stopped.wait_for(|stop| *stop).await) }).await
            });
        }
        Self { member, tasks, stop }
    }

    /// The end of a task, which none should have before [`leave`](Self::leave). Pending without a member.
    pub(super) async fn ended(&mut self) -> Result<(), tokio::task::JoinError> {
        match self.tasks.join_next().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }

    /// Waits for a call in progress, then deregisters.
    pub(super) async fn leave(mut self) {
        let Some(member) = self.member.take() else { return };
        self.stop.send_replace(true);
        let left = tokio::time::timeout(DEREGISTER_TIMEOUT, async {
            self.tasks.join_next().await;
            if *member.joined().borrow() { member.deregister().await } else { Ok(()) }
        });
        match left.await {
            Ok(Ok(())) => tracing::debug!("deregistered"),
            Ok(Err(error)) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "can't deregister; the registry will remove this instance after missed heartbeats"
            ),
            Err(_) => {
                tracing::warn!("deregistration timed out; the registry will remove this instance later")
            }
        }
    }
}

/// Updates `readiness`: the reason while registration fails, then met. Never ends.
async fn report_registration(member: Member, readiness: Readiness) {
    let (mut joined, mut failing) = (member.joined(), member.failing());
    loop {
        tokio::select! {
            biased;
            Ok(_) = joined.wait_for(|joined| *joined) => break,
            Ok(()) = failing.changed() => {
                if let Some(error) = failing.borrow_and_update().as_deref() {
                    readiness.unmet(REGISTRY, format!("not registered yet: {}", with_causes(error)));
                }
            }
            else => break,
        }
    }
    readiness.met(REGISTRY);
    std::future::pending::<()>().await
}
