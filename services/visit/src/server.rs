//! The service from bind to shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use hubspoke_chassis::{BindError, Config, RunError, Service};
use hubspoke_client::log::LOG_SERVICE;

use crate::PROCESS;
use crate::api::{self, App};
use crate::config::{State, VisitConfig};
use crate::counter::{Counter, StateError};

/// Why the service can't start, or ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// It can't listen or take part.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The state file can't be used.
    #[error("the count can't be kept")]
    State(#[from] StateError),
    /// The server ended by itself.
    #[error(transparent)]
    Run(#[from] RunError),
    /// One of its tasks died.
    #[error("a task of the service died")]
    Task(#[from] tokio::task::JoinError),
}

/// A bound visit service.
pub struct Server {
    service: Service,
    name: String,
    app: App,
}

impl Server {
    /// Binds the addresses and reads the count.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn bind(config: Config<VisitConfig>) -> Result<Self, ServerError> {
        let Config { common, own } = config;
        let service = Service::builder(PROCESS).requires([LOG_SERVICE]).bind(&common).await?;
        let counter = match own.state {
            State::Memory => Counter::in_memory(),
            State::File => tokio::task::spawn_blocking(move || Counter::in_file(&own.file)).await??,
        };
        let meter = service.metrics().meter();
        let visits = meter.u64_counter("hub.visit.visits");
        let visits = visits.with_unit("{visit}").with_description("Visits that got a number").build();
        visits.add(0, &[]);
        let app = App {
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

    /// Serves until `shutdown` is done; then finishes what is in flight and settles the count.
    ///
    /// # Errors
    /// [`ServerError`] where it ends before it was asked to.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ServerError> {
        let counter = self.app.counter.clone();
        let result = self.service.run(api::routes(&self.name, self.app), shutdown).await;
        if let Err(error) = counter.settle().await {
            tracing::warn!(%error, "the count could not be settled; the next start leaves a gap");
        }
        Ok(result?)
    }
}
