//! `hub up`: the platform, and the programs of a file beside it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use hubspoke_chassis::boot;
use hubspoke_run::spec::ProgramSpec;
use tokio_util::sync::CancellationToken;

use crate::config::{HubConfig, PROCESS};
use crate::output::print;
use crate::{invocation, programs, up};

/// Runs the platform, and then `programs`, until a signal.
pub(super) async fn run_up(mut config: HubConfig, programs: Vec<ProgramSpec>) -> anyhow::Result<()> {
    let shutdown = boot::shutdown()?;
    config.choose_advertise_host().await;
    let hub = up::Hub::bind(&config).await?;
    let registry = hub.addrs().registry_url();
    run_until_shutdown(hub, up::READY_TIMEOUT, shutdown, async |shutdown| {
        if programs.is_empty() {
            shutdown.await;
            return Ok(());
        }
        run_programs(programs, &config, registry, shutdown).await
    })
    .await
}

/// Runs programs beside the platform. If they end, the platform goes on.
async fn run_programs(
    programs: Vec<ProgramSpec>,
    config: &HubConfig,
    registry: String,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let platform = programs::platform(config, Some(registry)).await?;
    let stopping = CancellationToken::new();
    let running = programs::run(programs, platform, stopping.clone().cancelled_owned());
    tokio::pin!(running, shutdown);
    tokio::select! {
        () = &mut shutdown => {
            stopping.cancel();
            running.await.map(drop)
        }
        ran = &mut running => {
            ran?;
            shutdown.await;
            Ok(())
        }
    }
}

/// Runs the platform until `shutdown`, or until it fails to get ready in time. When it is ready, prints the banner and
/// goes on with `then`, which ends after `shutdown`.
async fn run_until_shutdown<S: Future<Output = ()>>(
    hub: up::Hub,
    ready_timeout: Duration,
    shutdown: S,
    then: impl AsyncFnOnce(Pin<&mut S>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let addrs = hub.addrs().clone();
    let print_banner = async move {
        addrs.ready(ready_timeout).await?;
        match print(&addrs.banner(PROCESS.version, &invocation::command_line())) {
            Err(error) if !is_broken_pipe(&error) => Err(error),
            _ => Ok(()),
        }
    };
    let mut failed = Ok(());
    let stop = async {
        tokio::pin!(shutdown);
        tokio::select! {
            () = &mut shutdown => return,
            printed = print_banner => failed = printed,
        }
        if failed.is_ok() {
            failed = then(shutdown).await;
        }
    };
    let ran = hub.run(stop).await;
    failed.and(ran)
}

/// Whether the reader of stdout has closed it, as `hub logs | head` does.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use hubspoke_chassis::config::ConfigSource;

    use super::*;

    /// The reason why a platform with these settings does not get ready.
    async fn why_not_ready(more: &[(&str, &str)]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let base = [
            ("HUB_LISTEN", "127.0.0.1:0"),
            ("HUB_HUB__GATEWAY", "127.0.0.1:0"),
            ("HUB_HUB__GATEWAY_CONTROL", "127.0.0.1:0"),
            ("HUB_HUB__LOG", "127.0.0.1:0"),
            ("HUB_HUB__VISIT", "127.0.0.1:0"),
            ("HUB_HUB__DATA_DIR", dir.path().to_str().unwrap()),
        ];
        let vars = base.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let source = ConfigSource { vars: vars.collect(), folder: "none".into(), file: None };
        let hub = up::Hub::bind(&HubConfig::load(&source).unwrap().0).await.unwrap();
        let ran = run_until_shutdown(hub, Duration::from_secs(2), std::future::pending(), async |_| Ok(()));
        let ended = tokio::time::timeout(Duration::from_secs(20), ran).await.expect("it ends");
        ended.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn a_platform_that_does_not_get_ready_ends_with_the_reason() {
        let error = why_not_ready(&[("HUB_REGISTRY__ALLOW_ADDRS", "10.0.0.0/8")]).await;
        assert!(
            error.contains("is not ready: not ready: registry: not registered yet: refused with 403"),
            "{error}"
        );
        assert!(error.contains("registry.allow_addrs"), "{error}");
    }

    #[tokio::test]
    async fn an_etcd_that_does_not_answer_is_the_reason() {
        let closed = hubspoke_testkit::ClosedPort::new();
        let error = why_not_ready(&[
            ("HUB_HUB__REGISTRIES", "2"),
            ("HUB_REGISTRY__STORE", "etcd"),
            ("HUB_ETCD__ENDPOINTS", &closed.url()),
            ("HUB_ETCD__REQUEST_TIMEOUT", "500ms"),
        ])
        .await;
        assert!(error.contains("is not ready: not ready: etcd: "), "{error}");
        assert!(error.contains(closed.url().trim_start_matches("http://")), "{error}");
        assert!(error.contains("refused"), "{error}");
    }
}
