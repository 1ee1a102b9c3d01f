//! From `main` to the exit code: command line, configuration, telemetry, signals.
//!
//! Only this module reads arguments and the environment and catches signals.

use std::error::Error;
use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use hubspoke_client::with_causes;
use tokio::runtime::Builder;

use crate::config::{Config, ConfigError, ConfigSource, IdentitySettings, Layers, Process, Table, Telemetry};
use crate::telemetry::{self, TelemetrySettings};

pub use self::healthcheck::{HealthQuery, reachable};
pub use self::signals::{Shutdown, shutdown};

mod healthcheck;
mod running;
mod signals;

/// Exit code for an invalid configuration: `EX_CONFIG` of `sysexits.h`.
pub const EXIT_CONFIG: u8 = 78;

type BoxError = Box<dyn Error + Send + Sync>;

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
    /// Ask the process of this service that runs here for /readyz: exit 0 if it is ready, else 1
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
        let common = config.common;
        let query = HealthQuery::Service(common.control_listen.unwrap_or(common.listen));
        return healthcheck(process.name, query, &common.tls);
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

/// Asks the process that runs here whether it is ready; the exit code is 0 if it is, else 1.
pub fn healthcheck(name: &str, query: HealthQuery, tls: &IdentitySettings) -> ExitCode {
    // A thread per core would count against the service's own limit if both run in one container.
    run_on(&mut Builder::new_current_thread(), name, healthcheck::healthcheck(query, tls), || {})
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

fn about(name: &str) -> String {
    format!("The Hubspoke {name} service. Settings: config/{name}.toml and HUB_… variables.")
}
