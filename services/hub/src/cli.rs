//! The command line: what can be said, and which module does it.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use hubspoke_chassis::boot;
use hubspoke_chassis::config::ConfigSource;

use crate::admin::{self, Registry, Target};
use crate::config::{HubConfig, PROCESS};
use crate::{demo, logs, print, status, up, watch};

/// Hubspoke: a registry, a gateway, a log and your services. Without a command: `hub up`.
#[derive(Parser)]
#[command(name = "hub", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    up: Up,
    /// Read this file instead of config/hub.toml; it must exist
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Print each value of the configuration with where it came from, and exit
    #[arg(long)]
    check_config: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Run the whole platform in this process
    Up(Up),
    /// Show the registry's catalogue
    Status {
        /// Only these, with the history of each: why is it suspect, why was it removed?
        #[arg(value_name = "SERVICE[/INSTANCE]")]
        which: Option<status::Which>,
        /// Print the registry's JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: At,
    },
    /// Watch instances come, go and share the load
    Watch {
        #[command(flatten)]
        args: watch::Args,
        #[command(flatten)]
        at: At,
    },
    /// Read the entries of all log instances as one stream
    Logs {
        #[command(flatten)]
        args: logs::Args,
        #[command(flatten)]
        at: At,
    },
    /// Generate visits, and show how they spread over the log instances
    Demo {
        #[command(flatten)]
        args: demo::Args,
        #[command(flatten)]
        at: At,
    },
    /// Let an instance finish what it has and get no new requests
    Drain {
        #[command(flatten)]
        which: Which,
    },
    /// Let a drained instance have requests again
    Undrain {
        #[command(flatten)]
        which: Which,
    },
    /// Take an instance out of the catalogue; one that lives comes back by itself
    Deregister {
        #[command(flatten)]
        which: Which,
    },
    /// Operate the registry itself
    Registry {
        #[command(subcommand)]
        command: RegistryCommand,
    },
}

#[derive(Subcommand)]
enum RegistryCommand {
    /// Show self-protection, or switch it: switched off, what is held back is removed at once
    Protect {
        /// Leave it out to see how it stands
        switch: Option<Switch>,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Args)]
struct Up {
    /// Log replicas
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    log: Option<u16>,
    /// Visit replicas
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    visit: Option<u16>,
}

#[derive(Args)]
struct At {
    /// The registry's URL instead of registry.url
    #[arg(long, value_name = "URL")]
    registry: Option<String>,
}

#[derive(Args)]
struct Which {
    /// The instance, by its id or its address
    #[arg(value_name = "SERVICE/INSTANCE")]
    target: Target,
    #[command(flatten)]
    at: At,
}

/// Does what the command line says.
pub fn run(cli: Cli) -> ExitCode {
    let source = ConfigSource::of_process(cli.config);
    let (mut config, layers) = match HubConfig::load(&source) {
        Ok(loaded) => loaded,
        Err(error) => return boot::invalid_config(PROCESS.name, &error),
    };
    if let Err(error) = config.common.registry.read_token() {
        return boot::invalid_config(PROCESS.name, &error);
    }
    if cli.check_config {
        return boot::show_config(PROCESS.name, &layers);
    }
    match cli.command.unwrap_or(Command::Up(cli.up)) {
        Command::Up(up) => {
            if let Err(error) = HubConfig::check_up(&layers) {
                return boot::invalid_config(PROCESS.name, &error);
            }
            config.hub.log_replicas = up.log.unwrap_or(config.hub.log_replicas);
            config.hub.visit_replicas = up.visit.unwrap_or(config.hub.visit_replicas);
            let telemetry = config.common.telemetry.clone();
            boot::run(&PROCESS, &telemetry, &source, run_all(config))
        }
        command => boot::block_on(PROCESS.name, async {
            match command_on(command, &config).await {
                // Whoever reads our output has seen enough (`hub logs | head`).
                Err(error) if is_closed_pipe(&error) => Ok(()),
                done => done,
            }
        }),
    }
}

/// Every command but `up`: they are views and calls, and say what they have to say on stdout.
async fn command_on(command: Command, config: &HubConfig) -> anyhow::Result<()> {
    let registry = |at: At| Registry::new(&config.common.registry, at.registry);
    match command {
        Command::Up(_) => Ok(()),
        Command::Status { which, json, at } => {
            let url = at.registry.unwrap_or_else(|| config.common.registry.url.clone());
            print(&status::run(&url, which.as_ref(), json).await?)
        }
        Command::Watch { args, at } => watch::run(args, &registry(at)?, boot::shutdown()?).await,
        Command::Logs { args, at } => logs::run(args, &registry(at)?, boot::shutdown()?).await,
        Command::Demo { args, at } => demo::run(args, &registry(at)?, boot::shutdown()?).await,
        Command::Drain { which } => {
            registry(which.at)?.drain(&which.target, true).await?;
            print(&format!("{} is draining\n", which.target))
        }
        Command::Undrain { which } => {
            registry(which.at)?.drain(&which.target, false).await?;
            print(&format!("{} takes requests again\n", which.target))
        }
        Command::Deregister { which } => {
            registry(which.at)?.deregister(&which.target).await?;
            print(&format!("{} is deregistered\n", which.target))
        }
        Command::Registry { command: RegistryCommand::Protect { switch, at } } => {
            let registry = registry(at)?;
            if let Some(switch) = switch {
                registry.protect(switch == Switch::On).await?;
            }
            print(&admin::said(&registry.protection().await?))
        }
    }
}

async fn run_all(config: HubConfig) -> anyhow::Result<()> {
    let shutdown = boot::shutdown()?;
    let hub = up::Hub::bind(&config).await?;
    run_and_welcome(hub, up::READY_TIMEOUT, shutdown).await
}

/// Runs the platform; says so once it is ready, and stops it where it never is.
async fn run_and_welcome(
    hub: up::Hub,
    within: Duration,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let addrs = hub.addrs().clone();
    let welcome = async move {
        addrs.ready(within).await?;
        match print(&addrs.welcome(PROCESS.version)) {
            Err(error) if !is_closed_pipe(&error) => Err(error),
            _ => Ok(()),
        }
    };
    let mut failed = Ok(());
    let stop = async {
        tokio::select! {
            () = shutdown => {}
            Err(error) = welcome => failed = Err(error),
        }
    };
    let ran = hub.run(stop).await;
    failed.and(ran)
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_can_be_said() {
        for line in [
            "hub",
            "hub up --log 5",
            "hub status --json --registry http://127.0.0.1:1",
            "hub status log",
            "hub status log/127.0.0.1:20002 --json",
            "hub demo --rate 200 --duration 1m30s --gateway http://127.0.0.1:1 --json",
            "hub watch",
            "hub watch --once --json",
            "hub logs -f --since 10m --grep x --source visit --trace 4bf9 --level warn -n 5 --json",
            "hub logs --gateway http://127.0.0.1:1",
            "hub drain log/127.0.0.1:20002",
            "hub undrain log/log-1 --registry http://127.0.0.1:1",
            "hub deregister log/log-1",
            "hub registry protect",
            "hub registry protect off",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        for line in [
            "hub demo --rate 0",
            "hub demo --duration soon",
            "hub logs -f --gateway http://127.0.0.1:1",
            "hub drain log",
            "hub drain",
            "hub status Log",
            "hub status log/",
            "hub registry",
            "hub registry protect maybe",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[tokio::test]
    async fn a_platform_that_is_never_ready_ends_with_the_reason() {
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
        let ran = run_and_welcome(hub, Duration::from_secs(2), std::future::pending());
        let error = tokio::time::timeout(Duration::from_secs(20), ran).await.expect("it ends").unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("is not ready: not ready: registry: not registered yet: refused with 403"),
            "{error}"
        );
        assert!(error.contains("registry.allow_addrs"), "{error}");
    }
}
