//! The command line: parses the arguments and calls the module of the subcommand.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use clap::{CommandFactory as _, Parser};
use hubspoke_chassis::boot::{self, HealthQuery};
use hubspoke_chassis::config::{ConfigError, ConfigSource, Telemetry};
use hubspoke_client::with_causes;
use hubspoke_run::process::{self, Leave, Supervise};

use self::commands::{HubCommand, InstanceArg, OnOff, RegistryArg, RegistryCommand, SuperviseArgs, UpArgs};
use self::platform::{is_broken_pipe, run_up};
use crate::admin_client::AdminClient;
use crate::config::{HubConfig, PROCESS};
use crate::output::print;
use crate::{cert, demo, describe, logs, programs, shell, status, token, watch};

mod commands;
mod platform;

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

/// Runs the command; returns the exit code of the process.
pub fn run(cli: HubCli) -> ExitCode {
    let cli = match run_alone(cli) {
        Ok(code) => return code,
        Err(cli) => cli,
    };
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
            config.hub.registries = up.registries.unwrap_or(config.hub.registries);
            config.hub.log_replicas = up.log.unwrap_or(config.hub.log_replicas);
            config.hub.visit_replicas = up.visit.unwrap_or(config.hub.visit_replicas);
            config.hub.insecure |= up.insecure;
            config.hub.tls |= up.tls;
            let etcd = if up.etcd.is_empty() { Ok(()) } else { config.use_etcd(&up.etcd) };
            let checked =
                etcd.and_then(|()| config.check_registries()).and_then(|()| config.check_exposure(&layers));
            if let Err(error) = checked {
                return boot::invalid_config(PROCESS.name, &error);
            }
            let programs = match up.file.as_deref().map(hubspoke_run::file::read).transpose() {
                Ok(programs) => programs.unwrap_or_default(),
                Err(error) => {
                    return boot::invalid_config(
                        PROCESS.name,
                        &ConfigError::new(with_causes(&error).to_string()),
                    );
                }
            };
            let telemetry = config.common.telemetry.clone();
            boot::run(&PROCESS, &telemetry, &source, run_up(config, programs))
        }
        HubCommand::Run { args, registry } => {
            let spec = match args.spec() {
                Ok(spec) => spec,
                Err(error) => {
                    return boot::invalid_config(
                        PROCESS.name,
                        &ConfigError::new(with_causes(error.as_ref()).to_string()),
                    );
                }
            };
            let telemetry = quiet(config.common.telemetry.clone(), &source);
            let code = Arc::new(AtomicU8::new(0));
            let ran = boot::run(&PROCESS, &telemetry, &source, {
                let code = Arc::clone(&code);
                async move {
                    let shutdown = boot::shutdown()?;
                    let platform = programs::platform(&config, registry.url).await?;
                    code.store(programs::run(vec![spec], platform, shutdown).await?, Relaxed);
                    anyhow::Ok(())
                }
            });
            if ran == ExitCode::SUCCESS { ExitCode::from(code.load(Relaxed)) } else { ran }
        }
        HubCommand::Add { args, registry } => {
            let telemetry = quiet(config.common.telemetry.clone(), &source);
            boot::run(&PROCESS, &telemetry, &source, async move {
                let shutdown = boot::shutdown()?;
                let platform = programs::platform(&config, registry.url).await?;
                programs::add(args, &platform, shutdown).await
            })
        }
        HubCommand::Healthcheck => {
            let (listen, public) = (config.common.listen, config.hub.gateway);
            boot::healthcheck(PROCESS.name, HealthQuery::Platform { listen, public }, &config.common.tls)
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

/// Runs the commands that need no configuration, or gives the others back.
fn run_alone(cli: HubCli) -> Result<ExitCode, HubCli> {
    let printed = match cli.command {
        Some(HubCommand::Exec { parent, command }) => {
            return Ok(ExitCode::from(process::exec(parent, &command)));
        }
        Some(HubCommand::Supervise(args)) => {
            let SuperviseArgs { parent, registry, token_file, name, addr, id, grace, command, .. } = args;
            let grace = Duration::from_millis(grace);
            let leave = Leave { registry, token_file, name, addr, id };
            return Ok(ExitCode::from(process::supervise(&Supervise { parent, grace, leave, command })));
        }
        Some(HubCommand::Cert { command }) => cert::run(command),
        Some(HubCommand::Completions { shell }) => print(&shell::completions(shell, &mut HubCli::command())),
        Some(HubCommand::Man { dir: Some(dir) }) => {
            shell::manual(HubCli::command(), &dir).map_err(Into::into)
        }
        Some(HubCommand::Man { dir: None }) => {
            shell::page(HubCli::command()).map_err(Into::into).and_then(|page| print(&page))
        }
        _ => return Err(cli),
    };
    Ok(boot::block_on(PROCESS.name, async {
        printed.or_else(|error| if is_broken_pipe(&error) { Ok(()) } else { Err(error) })
    }))
}

/// The log of a process whose terminal is for its programs: only what is wrong, unless it was asked for more.
fn quiet(mut telemetry: Telemetry, source: &ConfigSource) -> Telemetry {
    let asked = source.vars.iter().any(|(name, _)| name == "HUB_TELEMETRY__LOG");
    if !asked {
        "warn".clone_into(&mut telemetry.log);
    }
    telemetry
}

/// Runs any command but `up`.
async fn run_client(command: HubCommand, config: &HubConfig) -> anyhow::Result<()> {
    let client = |registry: RegistryArg| AdminClient::new(&config.common, registry.url);
    match command {
        HubCommand::Up(_)
        | HubCommand::Healthcheck
        | HubCommand::Run { .. }
        | HubCommand::Add { .. }
        | HubCommand::Cert { .. }
        | HubCommand::Completions { .. }
        | HubCommand::Man { .. }
        | HubCommand::Supervise(_)
        | HubCommand::Exec { .. } => Ok(()),
        HubCommand::Token { command } => token::run(command, config.common.access.tokens_file.as_deref()),
        HubCommand::Ps => print(&programs::ps().await),
        HubCommand::Stop { name } => print(&programs::stop(&name).await?),
        HubCommand::Ship { args, registry } => {
            let platform = programs::platform(config, registry.url).await?;
            programs::ship(args, &platform, boot::shutdown()?).await
        }
        HubCommand::Complete { command } => {
            let candidates = if command == "stop" {
                programs::names().await
            } else {
                let registry = AdminClient::new(&config.common, None)?;
                shell::candidates(&command, &registry.catalog().await?)
            };
            print(&candidates.into_iter().map(|name| name + "\n").collect::<String>())
        }
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
