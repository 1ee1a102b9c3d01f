//! The commands and their arguments.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use clap_complete::Shell;
use hubspoke_run::process::{EXEC, SUPERVISE};

use crate::admin_client::{InstanceRef, registry_urls};
use crate::cert::CertCommand;
use crate::demo::DemoArgs;
use crate::logs::LogsArgs;
use crate::programs::{AddArgs, RunArgs, ShipArgs};
use crate::shell::COMPLETE;
use crate::status::Selection;
use crate::token::TokenCommand;
use crate::watch::WatchArgs;

#[derive(Subcommand)]
pub(super) enum HubCommand {
    /// Run the whole platform in this process
    Up(UpArgs),
    /// Run a program as a member of the platform: found, balanced, checked and logged, without a change to it
    Run {
        #[command(flatten)]
        args: Box<RunArgs>,
        #[command(flatten)]
        registry: RegistryArg,
    },
    /// Check something that runs already, and keep it registered while this command runs
    Add {
        #[command(flatten)]
        args: AddArgs,
        #[command(flatten)]
        registry: RegistryArg,
    },
    /// Show the programs that run here, with their processes, ports, processor time and memory
    Ps,
    /// Stop a program that runs here: all its replicas
    Stop {
        /// The service's name
        name: String,
    },
    /// Send lines to the log service: standard input, or files as they grow
    Ship {
        #[command(flatten)]
        args: ShipArgs,
        #[command(flatten)]
        registry: RegistryArg,
    },
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
    /// Make and show certificates: a CA and certificates for services, in two commands
    Cert {
        #[command(subcommand)]
        command: CertCommand,
    },
    /// Ask the `hub up` that runs here whether all its services are ready: exit 0 if they are, else 1
    Healthcheck,
    /// Print the completion script of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual's page, or write all pages
    Man {
        /// Write a page for each command into this folder
        #[arg(long, value_name = "FOLDER")]
        dir: Option<PathBuf>,
    },
    /// Print what may follow a command, for completion scripts
    #[command(name = COMPLETE, hide = true)]
    Complete { command: String },
    /// Keep the processes of a program together
    #[command(name = SUPERVISE, hide = true)]
    Supervise(SuperviseArgs),
    /// Become a program
    #[command(name = EXEC, hide = true)]
    Exec {
        #[arg(long)]
        parent: u32,
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    /// Operate the registry itself
    Registry {
        #[command(subcommand)]
        command: RegistryCommand,
    },
}

#[derive(Subcommand)]
pub(super) enum RegistryCommand {
    /// Show or switch self-protection, which holds back removals when most instances fail at once
    Protect {
        /// Switch it on or off; switching it off removes the held-back instances at once
        switch: Option<OnOff>,
        #[command(flatten)]
        registry: RegistryArg,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OnOff {
    On,
    Off,
}

#[derive(Args)]
pub(super) struct UpArgs {
    /// Run N registries, which share the etcd of --etcd; those after the first listen on free ports
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(super) registries: Option<u16>,
    /// Keep the catalogue and the count of visits in etcd: client URLs of its members
    #[arg(long, value_name = "URL,URL", value_delimiter = ',')]
    pub(super) etcd: Vec<String>,
    /// Run N log replicas
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(super) log: Option<u16>,
    /// Run N visit replicas
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(super) visit: Option<u16>,
    /// Also speak TLS with clients, on port 20443, with certificates of its own making (hub.tls)
    #[arg(long)]
    pub(super) tls: bool,
    /// Also without tokens, listen on addresses that other machines reach (hub.insecure)
    #[arg(long)]
    pub(super) insecure: bool,
    /// Also run the programs of a Procfile or of a TOML file
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct SuperviseArgs {
    #[arg(long)]
    pub(super) parent: u32,
    #[arg(long)]
    pub(super) registry: String,
    #[arg(long)]
    pub(super) token_file: Option<PathBuf>,
    #[arg(long)]
    pub(super) name: String,
    #[arg(long)]
    pub(super) addr: String,
    #[arg(long)]
    pub(super) id: String,
    /// For `hub ps`
    #[arg(long)]
    pub(super) replica: u16,
    /// For `hub ps`
    #[arg(long)]
    pub(super) port: u16,
    /// In milliseconds
    #[arg(long)]
    pub(super) grace: u64,
    #[arg(last = true)]
    pub(super) command: Vec<OsString>,
}

#[derive(Args)]
pub(super) struct RegistryArg {
    /// Use this registry instead of the configured one (registry.url, HUB_REGISTRY__URL). Several are separated by commas
    #[arg(long = "registry", value_name = "URL", value_parser = registry_urls)]
    pub(super) url: Option<String>,
}

#[derive(Args)]
pub(super) struct InstanceArg {
    /// The instance, by its id or address
    #[arg(value_name = "SERVICE/INSTANCE")]
    pub(super) instance: InstanceRef,
    #[command(flatten)]
    pub(super) registry: RegistryArg,
}
