//! From `main` to the exit code: command line, configuration, telemetry, signals.
//!
//! Only this module reads arguments and the environment and catches signals.

use std::error::Error;
use std::future::Future;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use hubspoke_client::with_causes;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::config::{Common, Config, ConfigError, ConfigSource, Layers, Process, Table, Telemetry};
use crate::health::READYZ_PATH;
use crate::telemetry::{self, TelemetrySettings};

/// Exit code for an invalid configuration: `EX_CONFIG` of `sysexits.h`.
pub const EXIT_CONFIG: u8 = 78;
/// Exit code after a second signal: 128 + SIGINT, as in shells.
const EXIT_SECOND_SIGNAL: i32 = 130;
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(3);

type BoxError = Box<dyn Error + Send + Sync>;

/// Completes when the process is asked to stop: SIGTERM or ctrl-c.
pub type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Parser)]
struct Cli {
    /// Read this file instead of config/NAME.toml; it must exist
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print every setting with its origin, and exit
    #[arg(long)]
    check_config: bool,
    #[command(subcommand)]
    command: Option<CliCommand>,
}

#[derive(Subcommand)]
enum CliCommand {
    /// Ask this service's own /readyz: exit 0 if it is ready, else 1
    Healthcheck,
}

/// Runs a service with its configuration table, from the command line to the exit code: 0, 1 if it failed, 78 if the
/// configuration is invalid.
///
/// The [crate's documentation](crate) has an example. A service without settings needs only
/// [`ServiceBuilder::boot`](crate::ServiceBuilder::boot).
pub fn boot<T, F, Fut, E>(process: &Process, serve: F) -> ExitCode
where
    T: Table,
    F: FnOnce(Config<T>, Shutdown) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    let command = Cli::command().name(process.name).version(process.version).about(about(process.name));
    let cli = Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit());
    let source = ConfigSource::of_process(cli.config);
    let (config, layers) = match Layers::config::<T>(process, &source) {
        Ok(config) => config,
        Err(error) => return invalid_config(process.name, &error),
    };
    if let Err(error) = config.common.registry.read_token() {
        return invalid_config(process.name, &error);
    }
    if cli.check_config {
        return show_config(process.name, &layers);
    }
    if let Some(CliCommand::Healthcheck) = cli.command {
        // A thread per core would count against the service's own limit if both run in one container.
        let check = healthcheck(config.common);
        return run_on(&mut Builder::new_current_thread(), process.name, check, || {});
    }
    let telemetry = config.common.telemetry.clone();
    run(process, &telemetry, &source, async move {
        let shutdown = shutdown()?;
        serve(config, shutdown).await.map_err(Into::into)
    })
}

/// [`block_on`] with telemetry: started before, flushed after.
pub fn run(
    process: &Process,
    config: &Telemetry,
    source: &ConfigSource,
    run: impl Future<Output = Result<(), impl Into<BoxError>>>,
) -> ExitCode {
    let settings = match TelemetrySettings::read(process, config, &source.vars) {
        Ok(settings) => settings,
        Err(error) => return invalid_config(process.name, &error),
    };
    let running = match telemetry::start(settings) {
        Ok(running) => running,
        Err(error) => return failed(process.name, &error),
    };
    run_on(&mut Builder::new_multi_thread(), process.name, run, || running.shutdown())
}

/// Runs a future on a new runtime and turns its result into an exit code.
pub fn block_on(name: &str, run: impl Future<Output = Result<(), impl Into<BoxError>>>) -> ExitCode {
    run_on(&mut Builder::new_multi_thread(), name, run, || {})
}

/// Runs a future, then `flush` while the runtime still exists: a second signal is handled there.
fn run_on(
    runtime: &mut Builder,
    name: &str,
    run: impl Future<Output = Result<(), impl Into<BoxError>>>,
    flush: impl FnOnce(),
) -> ExitCode {
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(name, &error),
    };
    let result = runtime.block_on(run).map_err(Into::into);
    flush();
    // Only detached tasks of libraries are left; none of ours outlives `run`.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(name, error.as_ref()),
    }
}

/// Prints the configuration, for `--check-config`.
pub fn show_config(name: &str, layers: &Layers) -> ExitCode {
    let printed = layers
        .show()
        .map_err(BoxError::from)
        .and_then(|text| Ok(std::io::stdout().write_all(text.as_bytes())?));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(name, error.as_ref()),
    }
}

/// Prints a configuration error on one line; returns its exit code.
pub fn invalid_config(name: &str, error: &ConfigError) -> ExitCode {
    print_error(name, &format_args!("configuration: {error}"));
    ExitCode::from(EXIT_CONFIG)
}

fn failed(name: &str, error: &(dyn Error + 'static)) -> ExitCode {
    print_error(name, &with_causes(error));
    ExitCode::FAILURE
}

fn print_error(name: &str, text: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{name}: {text}"); // fails if stderr is closed
}

/// A future that completes at the first SIGTERM or ctrl-c. The second one ends the process at once, whether it is
/// starting, draining or flushing telemetry. Call it on a multi-threaded runtime.
///
/// # Errors
/// If the signals can't be caught.
pub fn shutdown() -> std::io::Result<Shutdown> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (first, asked) = oneshot::channel();
    // The only task without an owner: it must catch the second signal whatever else has ended.
    tokio::spawn(async move {
        either(&mut terminate, &mut interrupt).await;
        tracing::info!("stopping");
        let _ = first.send(()); // nobody receives it if the service has stopped already
        either(&mut terminate, &mut interrupt).await;
        std::process::exit(EXIT_SECOND_SIGNAL);
    });
    Ok(Box::pin(async move { drop(asked.await) }))
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Asks the service that this configuration describes whether it is ready.
async fn healthcheck(common: Common) -> Result<(), BoxError> {
    let addr = reachable(common.control_listen.unwrap_or(common.listen));
    let client = reqwest::Client::builder().no_proxy().timeout(HEALTHCHECK_TIMEOUT).build()?;
    let response = client.get(format!("http://{addr}{READYZ_PATH}")).send().await?;
    let status = response.status();
    if status.is_success() { Ok(()) } else { Err(format!("{status}: {}", response.text().await?).into()) }
}

/// The address at which this machine reaches a socket bound to `addr`: loopback for a wildcard.
pub fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, addr.port())
}

fn about(name: &str) -> String {
    format!("The Hubspoke {name} service. Settings: config/{name}.toml and HUB_… variables.")
}
