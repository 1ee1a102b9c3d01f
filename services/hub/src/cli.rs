//! The command line: parses the arguments and calls the module of the subcommand.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use hubspoke_chassis::boot::{self, HealthQuery};
use hubspoke_chassis::config::ConfigSource;

use crate::admin_client::{AdminClient, InstanceRef, registry_urls};
use crate::config::{HubConfig, PROCESS};
use crate::demo::{self, DemoArgs};
use crate::describe;
use crate::invocation;
use crate::logs::{self, LogsArgs};
use crate::output::print;
use crate::status::{self, Selection};
use crate::token::{self, TokenCommand};
use crate::up;
use crate::watch::{self, WatchArgs};

/// Run, watch and operate a Hubspoke platform: registry, gateway, log and your services
///
/// Without a command, hub runs the whole platform in this process, as `hub up` does.
#[derive(Parser)]
#[command(name = "hub", version)]
pub struct HubCli {
    #[command(subcommand)]
    command: Option<HubCommand>,
    #[command(flatten)]
    up: UpArgs,
    /// Read this file instead of config/hub.toml
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Print every setting with its origin, and exit
    #[arg(long)]
    check_config: bool,
}

#[derive(Subcommand)]
enum HubCommand {
    /// Run the whole platform in this process
    Up(UpArgs),
    /// Show the instances of all services
    Status {
        /// Show only this service or instance, with its history: why it is suspect, why it was removed
        #[arg(value_name = "SERVICE[/INSTANCE]")]
        selection: Option<Selection>,
        /// Print the registry's JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        registry: RegistryArg,
    },
    /// Watch instances come and go and share the load
    Watch {
        #[command(flatten)]
        args: WatchArgs,
        #[command(flatten)]
        registry: RegistryArg,
    },
    /// Print the entries of all log instances as one stream
    Logs {
        #[command(flatten)]
        args: LogsArgs,
        #[command(flatten)]
        registry: RegistryArg,
    },
    /// Send visits through the gateway and report how they were balanced
    Demo {
        #[command(flatten)]
        args: DemoArgs,
        #[command(flatten)]
        registry: RegistryArg,
    },
    /// Stop sending new requests to an instance; it finishes those in flight
    Drain {
        #[command(flatten)]
        instance: InstanceArg,
    },
    /// Send requests to a drained instance again
    Undrain {
        #[command(flatten)]
        instance: InstanceArg,
    },
    /// Remove an instance from the catalogue; a live one registers again
    Deregister {
        #[command(flatten)]
        instance: InstanceArg,
    },
    /// Make, list and revoke the tokens of a platform
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Ask the `hub up` that runs here whether all its services are ready: exit 0 if they are, else 1
    Healthcheck,
    /// Operate the registry itself
    Registry {
        #[command(subcommand)]
        command: RegistryCommand,
    },
}

#[derive(Subcommand)]
enum RegistryCommand {
    /// Show or switch self-protection, which holds back removals when most instances fail at once
    Protect {
        /// Switch it on or off; switching it off removes the held-back instances at once
        switch: Option<OnOff>,
        #[command(flatten)]
        registry: RegistryArg,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnOff {
    On,
    Off,
}

#[derive(Args)]
struct UpArgs {
    /// Run N log replicas
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    log: Option<u16>,
    /// Run N visit replicas
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    visit: Option<u16>,
    /// Also without tokens, listen on addresses that other machines reach (hub.insecure)
    #[arg(long)]
    insecure: bool,
}

#[derive(Args)]
struct RegistryArg {
    /// Use this registry instead of the configured one (registry.url, HUB_REGISTRY__URL). Several are separated by commas
    #[arg(long = "registry", value_name = "URL", value_parser = registry_urls)]
    url: Option<String>,
}

#[derive(Args)]
struct InstanceArg {
    /// The instance, by its id or address
    #[arg(value_name = "SERVICE/INSTANCE")]
    instance: InstanceRef,
    #[command(flatten)]
    registry: RegistryArg,
}

/// Runs the command; returns the exit code of the process.
pub fn run(cli: HubCli) -> ExitCode {
    let source = ConfigSource::of_process(cli.config);
    let (mut config, layers) = match HubConfig::load(&source) {
        Ok(loaded) => loaded,
        Err(error) => return boot::invalid_config(PROCESS.name, &error),
    };
    let command = cli.command.unwrap_or(HubCommand::Up(cli.up));
    // Its own token may be one that `hub token` is about to make.
    if !matches!(command, HubCommand::Token { .. })
        && let Err(error) = config.common.registry.read_token()
    {
        return boot::invalid_config(PROCESS.name, &error);
    }
    if cli.check_config {
        return boot::show_config(PROCESS.name, &layers);
    }
    match command {
        HubCommand::Up(up) => {
            if let Err(error) = HubConfig::check_up(&layers) {
                return boot::invalid_config(PROCESS.name, &error);
            }
            config.hub.log_replicas = up.log.unwrap_or(config.hub.log_replicas);
            config.hub.visit_replicas = up.visit.unwrap_or(config.hub.visit_replicas);
            config.hub.insecure |= up.insecure;
            if let Err(error) = config.check_exposure(&layers) {
                return boot::invalid_config(PROCESS.name, &error);
            }
            let telemetry = config.common.telemetry.clone();
            boot::run(&PROCESS, &telemetry, &source, run_up(config))
        }
        HubCommand::Healthcheck => {
            let (listen, public) = (config.common.listen, config.hub.gateway);
            boot::healthcheck(PROCESS.name, HealthQuery::Platform { listen, public })
        }
        command => boot::block_on(PROCESS.name, async {
            match run_client(command, &config).await {
                // The reader of stdout has closed it, as `hub logs | head` does.
                Err(error) if is_broken_pipe(&error) => Ok(()),
                result => result,
            }
        }),
    }
}

/// Runs any command but `up`.
async fn run_client(command: HubCommand, config: &HubConfig) -> anyhow::Result<()> {
    let client = |registry: RegistryArg| AdminClient::new(&config.common.registry, registry.url);
    match command {
        HubCommand::Up(_) | HubCommand::Healthcheck => Ok(()),
        HubCommand::Token { command } => token::run(command, config.common.access.tokens_file.as_deref()),
        HubCommand::Status { selection, json, registry } => {
            print(&status::run(&client(registry)?, selection.as_ref(), json).await?)
        }
        HubCommand::Watch { args, registry } => watch::run(args, &client(registry)?, boot::shutdown()?).await,
        HubCommand::Logs { args, registry } => logs::run(args, &client(registry)?, boot::shutdown()?).await,
        HubCommand::Demo { args, registry } => demo::run(args, &client(registry)?, boot::shutdown()?).await,
        HubCommand::Drain { instance: InstanceArg { instance, registry } } => {
            client(registry)?.drain(&instance, true).await?;
            print(&format!("{instance} is draining\n"))
        }
        HubCommand::Undrain { instance: InstanceArg { instance, registry } } => {
            client(registry)?.drain(&instance, false).await?;
            print(&format!("{instance} is no longer draining\n"))
        }
        HubCommand::Deregister { instance: InstanceArg { instance, registry } } => {
            client(registry)?.deregister(&instance).await?;
            print(&format!("{instance} is deregistered\n"))
        }
        HubCommand::Registry { command: RegistryCommand::Protect { switch, registry } } => {
            let registry = client(registry)?;
            if let Some(switch) = switch {
                registry.protect(switch == OnOff::On).await?;
            }
            print(&(describe::protection(&registry.protection().await?) + "\n"))
        }
    }
}

async fn run_up(mut config: HubConfig) -> anyhow::Result<()> {
    let shutdown = boot::shutdown()?;
    config.choose_advertise_host().await;
    let hub = up::Hub::bind(&config).await?;
    run_until_shutdown(hub, up::READY_TIMEOUT, shutdown).await
}

/// Runs the platform until `shutdown`, or until it fails to get ready in time. Prints the banner in between.
async fn run_until_shutdown(
    hub: up::Hub,
    ready_timeout: Duration,
    shutdown: impl Future<Output = ()>,
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
        tokio::select! {
            () = shutdown => {}
            Err(error) = print_banner => failed = Err(error),
        }
    };
    let ran = hub.run(stop).await;
    failed.and(ran)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_platform_that_does_not_get_ready_ends_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let vars = [
            ("HUB_LISTEN", "127.0.0.1:0"),
            ("HUB_HUB__GATEWAY", "127.0.0.1:0"),
            ("HUB_HUB__GATEWAY_CONTROL", "127.0.0.1:0"),
            ("HUB_HUB__LOG", "127.0.0.1:0"),
            ("HUB_HUB__VISIT", "127.0.0.1:0"),
            ("HUB_HUB__DATA_DIR", dir.path().to_str().unwrap()),
            ("HUB_REGISTRY__ALLOW_ADDRS", "10.0.0.0/8"),
        ];
        let vars = vars.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let source = ConfigSource { vars, folder: "none".into(), file: None };
        let hub = up::Hub::bind(&HubConfig::load(&source).unwrap().0).await.unwrap();
        let ran = run_until_shutdown(hub, Duration::from_secs(2), std::future::pending());
        let error = tokio::time::timeout(Duration::from_secs(20), ran).await.expect("it ends").unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("is not ready: not ready: registry: not registered yet: refused with 403"),
            "{error}"
        );
        assert!(error.contains("registry.allow_addrs"), "{error}");
    }
}
