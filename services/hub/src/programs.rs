//! `hub run`, `hub add`, `hub ps`, `hub stop` and `hub ship`: other people's programs as members.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use hubspoke_client::with_causes;
use hubspoke_run::platform::{Platform, PlatformConfig};
use hubspoke_run::ps::{self, RunningProgram};
use hubspoke_run::ship::{self, ShipConfig};
use hubspoke_run::spec::ProgramSpec;
use hubspoke_run::terminal::Terminal;
use hubspoke_run::{control, supervisor};

pub(crate) use self::args::{AddArgs, RunArgs, ShipArgs};
use crate::config::HubConfig;
use crate::table::layout;

mod args;

/// The platform that the configuration, or `url`, names.
///
/// # Errors
/// If the token file can't be read or the HTTP client can't be created.
pub(crate) async fn platform(config: &HubConfig, url: Option<String>) -> anyhow::Result<Platform> {
    let common = &config.common;
    if common.tls.is_on() {
        bail!("programs can't take part in mutual TLS, which [tls] switches on");
    }
    let mut platform = PlatformConfig::new(url.unwrap_or_else(|| common.registry.url.clone()));
    platform.token = common.registry.read_token()?;
    platform.token_file.clone_from(&common.registry.token_file);
    platform.advertise_host.clone_from(&common.advertise_host);
    platform.otlp_endpoint.clone_from(&common.telemetry.otlp_endpoint);
    Platform::connect(platform).await.context("can't create an HTTP client")
}

/// Runs programs until `stop`, or until all have ended. Returns the exit code.
///
/// # Errors
/// If they need each other.
pub(crate) async fn run(
    programs: Vec<ProgramSpec>,
    platform: Platform,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<u8> {
    let (terminal, thread) = Terminal::start();
    let code = supervisor::run(programs, platform, terminal, stop).await;
    thread.finish();
    Ok(code?)
}

/// Keeps something registered that runs already.
///
/// # Errors
/// If it can't be registered.
pub(crate) async fn add(
    args: AddArgs,
    platform: &Platform,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let (terminal, thread) = Terminal::start();
    let added = hubspoke_run::add(args.existing(), platform, &terminal, stop).await;
    drop(terminal);
    thread.finish();
    Ok(added?)
}

/// Ships standard input or files to the log service.
///
/// # Errors
/// If a file can't be read, or entries were lost.
pub(crate) async fn ship(
    args: ShipArgs,
    platform: &Platform,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let config: ShipConfig = args.config()?;
    Ok(ship::ship(config, platform, stop).await?)
}

/// The programs that run here, as a table.
pub(crate) async fn ps() -> String {
    let programs = ps::programs().await;
    let row = |program: &RunningProgram| {
        vec![
            program.name.clone(),
            program.replica.to_string(),
            program.pid.to_string(),
            program.port.to_string(),
            format!("{:.1} %", program.cpu),
            memory(program.memory),
            humantime::format_duration(Duration::from_secs(program.running.as_secs())).to_string(),
            program.hub.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = programs.iter().map(row).collect();
    layout(&["NAME", "REPLICA", "PID", "PORT", "CPU", "MEMORY", "RUNNING", "HUB"], &rows)
}

fn memory(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    let mib = bytes as f64 / f64::from(1 << 20);
    format!("{mib:.1} MiB")
}

/// Stops all replicas of a program, whichever `hub` runs them.
///
/// # Errors
/// If none runs here, or it can't be stopped.
pub(crate) async fn stop(name: &str) -> anyhow::Result<String> {
    let programs = ps::programs().await;
    let mut hubs: BTreeMap<u32, usize> = BTreeMap::new();
    for program in programs.iter().filter(|program| program.name == name) {
        *hubs.entry(program.hub).or_default() += 1;
    }
    if hubs.is_empty() {
        let mut names: Vec<&str> = programs.iter().map(|program| program.name.as_str()).collect();
        names.dedup();
        let known = if names.is_empty() { "none does".to_owned() } else { names.join(", ") };
        bail!("no program called {name:?} runs below a `hub run` or `hub up` on this machine; {known}");
    }
    let mut stopped = 0;
    for (hub, replicas) in hubs {
        let asked = control::stop(hub, name).await;
        asked.map_err(|error| anyhow!("can't stop {name} of process {hub}: {}", with_causes(&error)))?;
        stopped += replicas;
    }
    Ok(format!("{name} has stopped ({stopped} replica{})\n", if stopped == 1 { "" } else { "s" }))
}

/// The names of the programs that run here.
pub(crate) async fn names() -> Vec<String> {
    let mut names: Vec<String> = ps::programs().await.into_iter().map(|program| program.name).collect();
    names.dedup();
    names
}
