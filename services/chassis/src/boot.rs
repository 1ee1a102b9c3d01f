//! What `main` is made of: the command line, the configuration, tracing, signals, exit codes.
//!
//! Only here does a process read its environment and its arguments, and only here are signals caught.

use std::error::Error;
use std::future::Future;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::config::{Common, Config, ConfigError, Layers, Process, Source, Table, Telemetry};
use crate::health::READYZ_PATH;
use crate::telemetry;

/// Exit code for a wrong configuration: `EX_CONFIG` of `sysexits.h`.
pub const EXIT_CONFIG: u8 = 78;
/// Exit code after a second signal: 128 + SIGINT, as shells say it.
const EXIT_SECOND_SIGNAL: i32 = 130;
/// How long `healthcheck` waits for an answer.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// Done when the process is asked to stop (SIGTERM or ctrl-c).
pub type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Parser)]
struct Cli {
    /// Read this file instead of config/NAME.toml; it must exist
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print each value of the configuration with where it came from, and exit
    #[arg(long)]
    check_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Ask this service's own /readyz: exit 0 where it is ready, else 1
    Healthcheck,
}

/// Runs a service from its command line to its exit code.
pub fn boot<T, F, Fut, E>(process: &Process, serve: F) -> ExitCode
where
    T: Table,
    F: FnOnce(Config<T>, Shutdown) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let command = Cli::command().name(process.name).version(process.version).about(about(process.name));
    let matches = command.get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let source = Source::of_process(cli.config);
    let (config, layers) = match Layers::config::<T>(process, &source) {
        Ok(config) => config,
        Err(error) => return wrong_config(process.name, &error),
    };
    if let Err(error) = config.common.registry.read_token() {
        return wrong_config(process.name, &error);
    }
    if cli.check_config {
        return show(process.name, &layers);
    }
    if let Some(Command::Healthcheck) = cli.command {
        // One question needs no thread per core: in a container they count against the service's own limit.
        return on_runtime(
            process.name,
            &mut Builder::new_current_thread(),
            healthcheck(config.common),
            || {},
        );
    }
    let telemetry = config.common.telemetry.clone();
    run(process, &telemetry, &source, async move {
        let shutdown = shutdown()?;
        serve(config, shutdown).await.map_err(Into::into)
    })
}

/// [`block_on`] with telemetry around it: started before, flushed after.
pub fn run<E>(
    process: &Process,
    config: &Telemetry,
    source: &Source,
    run: impl Future<Output = Result<(), E>>,
) -> ExitCode
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let settings = match telemetry::Settings::read(process, config, &source.vars) {
        Ok(settings) => settings,
        Err(error) => return wrong_config(process.name, &error),
    };
    let running = match telemetry::start(settings) {
        Ok(running) => running,
        Err(error) => return failed(process.name, &error),
    };
    on_runtime(process.name, &mut Builder::new_multi_thread(), run, || running.shutdown())
}

/// Runs a future on a new runtime and turns its result into an exit code.
pub fn block_on<E>(name: &str, run: impl Future<Output = Result<(), E>>) -> ExitCode
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    on_runtime(name, &mut Builder::new_multi_thread(), run, || {})
}

/// Runs a future, then does the rest while the runtime still lives: a second signal is waited for there.
fn on_runtime<E>(
    name: &str,
    runtime: &mut Builder,
    run: impl Future<Output = Result<(), E>>,
    rest: impl FnOnce(),
) -> ExitCode
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(name, &error),
    };
    let result = runtime.block_on(run).map_err(Into::into);
    rest();
    // What still runs is detached work of libraries; nothing of ours is waited for after `run`.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(name, error.as_ref()),
    }
}

/// Prints a layered configuration, for `--check-config`.
pub fn show(name: &str, layers: &Layers) -> ExitCode {
    let printed = layers
        .show()
        .map_err(Box::<dyn Error + Send + Sync>::from)
        .and_then(|text| Ok(std::io::stdout().write_all(text.as_bytes())?));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(name, error.as_ref()),
    }
}

/// Says what is wrong with the configuration, in one line, and how that ends.
pub fn wrong_config(name: &str, error: &ConfigError) -> ExitCode {
    say(name, &format_args!("configuration: {error}"));
    ExitCode::from(EXIT_CONFIG)
}

fn failed(name: &str, error: &(dyn Error + 'static)) -> ExitCode {
    say(name, &in_full(error));
    ExitCode::FAILURE
}

/// An error with all its causes, in one line.
pub(crate) fn in_full(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

fn say(name: &str, text: &dyn std::fmt::Display) {
    // Where stderr is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{name}: {text}");
}

/// A future that is done at the first SIGTERM or ctrl-c. A second one ends the process at once, whatever it is doing:
/// starting, finishing what is in flight, or flushing telemetry. Call it within a runtime of several threads.
///
/// # Errors
/// Where the signals can't be caught.
pub fn shutdown() -> std::io::Result<Shutdown> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (first, asked) = oneshot::channel();
    // Ends with the process, which is what it is for.
    tokio::spawn(async move {
        either(&mut terminate, &mut interrupt).await;
        tracing::info!("stopping");
        let _ = first.send(()); // nobody waits where the service is ending already
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
async fn healthcheck(common: Common) -> Result<(), Box<dyn Error + Send + Sync>> {
    let addr = reachable(common.control_listen.unwrap_or(common.listen));
    let client = reqwest::Client::builder().no_proxy().timeout(HEALTHCHECK_TIMEOUT).build()?;
    let reply = client.get(format!("http://{addr}{READYZ_PATH}")).send().await?;
    let status = reply.status();
    if status.is_success() { Ok(()) } else { Err(format!("{status}: {}", reply.text().await?).into()) }
}

/// An address to reach what listens on `addr` from this machine.
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
