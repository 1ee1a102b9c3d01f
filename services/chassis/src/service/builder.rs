use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use axum::Router;
use hubspoke_client::membership::MemberConfig;
use hubspoke_client::{Directory, LoadCounters, LogClient, Member, MemberCredentials};
use hubspoke_protocol::{META_METRICS, METRICS_PATH, ServiceInfo};

use super::bound::Service;
use super::error::BindError;
use super::listen::{advertise, listen};
use super::membership::Membership;
use crate::boot::boot;
use crate::config::{Common, Config, NoTable, Process};
use crate::health::Readiness;
use crate::metrics::Metrics;
use crate::rights::AccessControl;
use crate::site::KnownHosts;
use crate::tls::{ServerTls, show_certificates};
use crate::{server, telemetry};

/// Describes a service; [`boot`](Self::boot) runs it as a process, [`bind`](Self::bind) binds it within one.
#[derive(Debug, Clone)]
#[must_use]
pub struct ServiceBuilder {
    process: Process,
    info: ServiceInfo,
    is_member: bool,
    id: Option<String>,
}

/// Longest id that the registry accepts, in bytes.
const MAX_ID: usize = 256;

/// Whether an id can be registered and sent in headers.
fn is_id(id: &str) -> bool {
    (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
}

impl Service {
    /// Describes a service, by its name or its [`Process`]. The [crate's documentation](crate) has examples.
    pub fn builder(process: impl Into<Process>) -> ServiceBuilder {
        ServiceBuilder { process: process.into(), info: ServiceInfo::default(), is_member: true, id: None }
    }
}

impl ServiceBuilder {
    /// Sets the version that `--version` and telemetry show, usually `env!("CARGO_PKG_VERSION")`.
    pub fn version(mut self, version: &'static str) -> Self {
        self.process.version = version;
        self
    }

    /// Adds services whose instances this one calls.
    pub fn requires(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.info.required_services.extend(names.into_iter().map(Into::into));
        self
    }

    /// Adds an entry to `Meta`.
    pub fn meta(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.info.meta.insert(key.into(), value.into());
        self
    }

    /// Sets the id of this run, in place of a random one. Ignored if it is not up to 256 visible ASCII characters.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Makes it a service that joins no registry: the registry itself.
    pub fn standalone(mut self) -> Self {
        self.is_member = false;
        self
    }

    /// Binds the addresses in `common`, whose name is the registered one. Nothing is served before [`Service::run`].
    ///
    /// # Errors
    /// [`BindError`] if an address can't be bound or the configuration is invalid.
    pub async fn bind(self, common: &Common) -> Result<Service, BindError> {
        let token = common.registry.read_token()?;
        let identity = common.tls.open()?;
        let tls = identity.as_ref().map(ServerTls::new).transpose()?;
        server::raise_file_limit();
        let public = listen(common.listen, "listen", self.process.name)?;
        let optional =
            |addr: Option<SocketAddr>, key| addr.map(|addr| listen(addr, key, self.process.name)).transpose();
        let control = optional(common.control_listen, "control_listen")?;
        let metrics_only = optional(common.metrics_listen, "metrics_listen")?;
        let metrics_addr = metrics_only.as_ref().map(|bound| bound.addr);
        let id = self.id.filter(|id| is_id(id)).unwrap_or_else(|| telemetry::new_instance_id(&common.name));
        let metrics = Metrics::new(&common.name, &id)?;
        telemetry::add_instance(metrics.instance());
        let load = LoadCounters::default();
        metrics.show_load(&load);
        let readiness = Readiness::default();
        let mut info = self.info;
        info.name.clone_from(&common.name);
        info.id = Some(id.clone());
        let metrics_at =
            metrics_addr.map_or_else(|| METRICS_PATH.to_owned(), |addr| format!(":{}", addr.port()));
        info.meta.entry(META_METRICS.to_owned()).or_insert(metrics_at);
        let mut directory = Directory::default();
        let mut member = None;
        if self.is_member {
            let mut config = MemberConfig::new(&common.registry.url, info.clone());
            config.token = token.clone();
            config.identity = identity.clone();
            config.advertise = advertise(common, &public, control.as_ref());
            let joining = Member::new(config, load.clone())?;
            directory = joining.directory().clone();
            Membership::pending(&readiness);
            member = Some(joining);
        }
        let copies = common.log_client.copies();
        let credentials =
            MemberCredentials { token: token.clone().filter(|_| self.is_member), identity: identity.clone() };
        let log = LogClient::with_credentials(directory, &info, credentials)?;
        let log = log.with_copies(copies);
        if copies.count() > 1 {
            metrics.show_short_entries(&log);
        }
        let access = Arc::new(AccessControl::new(common, token, member.clone(), &metrics)?);
        if let Some(identity) = &identity {
            let (expires, failures) = (identity.clone(), identity.clone());
            let (expires, failures) = (move || Some(expires.expires()), move || failures.reload_failures());
            show_certificates(&metrics.meter(), "inside", expires, failures);
        }
        let grace = common.shutdown_grace;
        Ok(Service {
            grace,
            max_connections: common.max_connections,
            id,
            listener: public.listener,
            addr: public.addr,
            control_addr: control.as_ref().map(|control| control.addr),
            control: control.map(|control| control.listener),
            metrics_only: metrics_only.map(|bound| bound.listener),
            metrics_addr,
            hosts: KnownHosts::new(common),
            member,
            access,
            identity,
            tls,
            log,
            load,
            readiness,
            metrics,
        })
    }

    /// Runs the service from the command line to the exit code: the whole `main` of a service without settings of its
    /// own, as in the [example of the crate](crate). [`boot`](crate::boot()) is for services with settings.
    pub fn boot(self, routes: impl FnOnce(&Service) -> Router) -> ExitCode {
        let process = self.process;
        boot(&process, |config: Config<NoTable>, shutdown| async move {
            let service = self.bind(&config.common).await?;
            let routes = routes(&service);
            service.run(routes, shutdown).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        })
    }
}
