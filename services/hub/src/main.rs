//! The command line of `hub`: arguments in, exit code out.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use hub::config::{HubConfig, PROCESS};
use hub::{status, up};
use hub_chassis::boot;
use hub_chassis::config::Source;

/// Hubspoke: a registry, a gateway, a log and your services. Without a command: `hub up`.
#[derive(Parser)]
#[command(name = "hub", version)]
struct Cli {
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
        /// Print the registry's JSON
        #[arg(long)]
        json: bool,
        /// The registry's URL instead of registry.url
        #[arg(long, value_name = "URL")]
        registry: Option<String>,
    },
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

fn main() -> ExitCode {
    let cli = Cli::parse();
    let source = Source::of_process(cli.config);
    let (mut config, layers) = match HubConfig::load(&source) {
        Ok(loaded) => loaded,
        Err(error) => return boot::wrong_config(PROCESS.name, &error),
    };
    if cli.check_config {
        return boot::show(PROCESS.name, &layers);
    }
    match cli.command.unwrap_or(Command::Up(cli.up)) {
        Command::Up(up) => {
            config.hub.log_replicas = up.log.unwrap_or(config.hub.log_replicas);
            config.hub.visit_replicas = up.visit.unwrap_or(config.hub.visit_replicas);
            let telemetry = config.common.telemetry.clone();
            boot::run(&PROCESS, &telemetry, &source, run(config))
        }
        Command::Status { json, registry } => {
            let url = registry.unwrap_or(config.common.registry.url);
            boot::block_on(PROCESS.name, print_status(url, json))
        }
    }
}

async fn run(config: HubConfig) -> anyhow::Result<()> {
    let shutdown = boot::shutdown()?;
    let hub = up::Hub::bind(&config).await?;
    let addrs = hub.addrs().clone();
    let welcome = tokio::spawn(async move {
        addrs.ready().await?;
        print(&addrs.welcome(PROCESS.version))
    });
    let ran = hub.run(shutdown).await;
    welcome.abort();
    ran
}

async fn print_status(url: String, json: bool) -> anyhow::Result<()> {
    let text = status::fetch(&url).await?;
    let view = status::parse(&text)?;
    print(&if json { text } else { status::render(&view, jiff::Timestamp::now()) })
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
