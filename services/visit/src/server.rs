//! The service from bind to shutdown.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hubspoke_chassis::{BindError, Config, RunError, Service};
use hubspoke_client::log::LOG_SERVICE;
use hubspoke_etcd::{Etcd, InvalidConfig};

use crate::api::{self, VisitApp};
use crate::config::{CountStorage, PROCESS, VisitConfig};
use crate::counter::{StateError, VisitCounter};
use crate::metrics;

/// Why the service can't start, or ended by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VisitServerError {
    /// The addresses can't be bound, or the member can't be set up.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// etcd's settings are invalid.
    #[error("etcd.{0}")]
    Etcd(#[from] InvalidConfig),
    /// The state file can't be used.
    #[error("can't restore the count")]
    State(#[from] StateError),
    /// The server ended by itself.
    #[error(transparent)]
    Run(#[from] RunError),
    /// One of its tasks died.
    #[error("a task of the service panicked")]
    Task(#[from] tokio::task::JoinError),
}

/// A bound visit service.
pub struct VisitServer {
    service: Service,
    name: String,
    app: VisitApp,
}

impl VisitServer {
    /// Binds the addresses and restores the count.
    ///
    /// # Errors
    /// [`VisitServerError`].
    pub async fn bind(config: Config<VisitConfig>) -> Result<Self, VisitServerError> {
        let Config { common, own } = config;
        let service = Service::builder(PROCESS).requires([LOG_SERVICE]).bind(&common).await?;
        let counter = match own.state {
            CountStorage::Memory => VisitCounter::in_memory(),
            CountStorage::Etcd => {
                let etcd = Etcd::new(own.etcd)?;
                let key = etcd.key(&format!("counts/{}", common.name));
                VisitCounter::in_etcd(&etcd, key)
            }
            CountStorage::File => {
                tokio::task::spawn_blocking(move || VisitCounter::in_file(&own.file)).await??
            }
        };
        let meter = service.metrics().meter();
        let visits = meter.u64_counter("hub.visit.visits");
        let visits = visits.with_unit("{visit}").with_description("Visits that got a number").build();
        visits.add(0, &[]);
        if let Some(stats) = counter.stats() {
            metrics::register(&meter, &stats);
        }
        let app = VisitApp {
            counter,
            visits,
            log: service.log(),
            instance: service.id().into(),
            rate: Arc::default(),
            start: Instant::now(),
        };
        Ok(Self { service, name: common.name, app })
    }

    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.service.local_addr()
    }

    /// Serves until `shutdown` resolves. Then finishes requests in flight and saves the count.
    ///
    /// # Errors
    /// [`VisitServerError`] if it ends by itself.
    pub fn run(
        self,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> BoxFuture<'static, Result<(), VisitServerError>> {
        self.run_boxed(shutdown.boxed())
    }

    /// Boxed, so that it is compiled here, once and with this package's optimisation, instead of in each caller.
    fn run_boxed(self, shutdown: BoxFuture<'static, ()>) -> BoxFuture<'static, Result<(), VisitServerError>> {
        self.run_until(shutdown).boxed()
    }

    async fn run_until(self, shutdown: BoxFuture<'static, ()>) -> Result<(), VisitServerError> {
        let counter = self.app.counter.clone();
        let result = self.service.run(api::routes(&self.name, self.app), shutdown).await;
        if let Err(error) = counter.release().await {
            let error = &error as &dyn Error;
            tracing::warn!(error, "can't save the count; the next start leaves a gap in the numbers");
        }
        Ok(result?)
    }
}
