//! `hub cert`: a certificate authority, and certificates for services, in files as Kubernetes lays out Secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use hubspoke_protocol::check_name;
use jiff::Timestamp;

use self::authority::{AUTHORITY_LIFETIME, CertNames, Host};
use self::display::shown;
use self::folder::{CertFolder, Replace};
use crate::output::{print, remark};

pub(crate) mod authority;
mod details;
mod display;
pub(crate) mod folder;
mod pem;
mod show;

/// The commands of `hub cert`.
#[derive(Subcommand)]
pub(crate) enum CertCommand {
    /// Make a certificate authority (CA), which signs the certificates of services: ca.crt and ca.key
    Init(InitArgs),
    /// Make certificates for services: NAME/tls.crt, NAME/tls.key, and NAME/ca.crt to check others with
    Issue(IssueArgs),
    /// Print names, issuer, validity and key of the certificates in a file; fails if they can't be used
    Show {
        /// The file, or a folder with tls.crt
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Args)]
pub(crate) struct FolderArg {
    /// The folder of the CA and of the certificates
    #[arg(long, value_name = "FOLDER", default_value = "certs")]
    dir: PathBuf,
}

#[derive(Args)]
pub(crate) struct InitArgs {
    /// What the CA is called; otherwise `Hubspoke CA` and a random number
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Ends after this time; otherwise after ten years
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    expires: Option<Duration>,
    /// Replace a CA that exists; nothing trusts the new one yet
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    folder: FolderArg,
}

#[derive(Args)]
pub(crate) struct IssueArgs {
    /// The names of services, each of which gets a certificate with the URI spiffe://hubspoke/NAME
    #[arg(value_name = "NAME", required_unless_present_any = ["operator", "reader"], value_parser = service_name)]
    names: Vec<String>,
    /// An operator's certificate in the folder NAME, for `hub` commands
    #[arg(long, value_name = "NAME", value_parser = service_name)]
    operator: Vec<String>,
    /// A reader's certificate in the folder NAME
    #[arg(long, value_name = "NAME", value_parser = service_name)]
    reader: Vec<String>,
    /// A host name or IP address that the certificates are also for; may be repeated. Without it, a certificate that is
    /// replaced keeps its hosts
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    host: Vec<Host>,
    /// Ends after this time
    #[arg(long, value_name = "TIME", default_value = "365d", value_parser = humantime::parse_duration)]
    expires: Duration,
    /// The folder of the CA, if it is another one
    #[arg(long, value_name = "FOLDER")]
    ca: Option<PathBuf>,
    /// Make the CA first, if there is none
    #[arg(long)]
    init: bool,
    /// Replace certificates that exist if less than a third of their lifetime is left, or their names or the CA differ
    #[arg(long, conflicts_with = "force")]
    renew: bool,
    /// Replace certificates that exist
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    folder: FolderArg,
}

fn service_name(name: &str) -> Result<String, String> {
    check_name(name).map(|()| name.to_owned()).map_err(|error| error.to_string())
}

/// Runs a command.
///
/// # Errors
/// If a file can't be read, written, or used, or would be replaced without having been told to.
pub(crate) fn run(command: CertCommand) -> anyhow::Result<()> {
    let now = Timestamp::now();
    match command {
        CertCommand::Init(args) => init(&args, now),
        CertCommand::Issue(args) => issue(&args, now),
        CertCommand::Show { file } => {
            let shown = show::show(&file, now)?;
            print(&shown.text)?;
            shown.fault.map_or(Ok(()), |fault| Err(anyhow::Error::msg(fault)))
        }
    }
}

fn init(args: &InitArgs, now: Timestamp) -> anyhow::Result<()> {
    let folder = CertFolder::of(&args.folder.dir);
    let _lock = folder.lock()?;
    let lifetime = args.expires.unwrap_or(AUTHORITY_LIFETIME);
    let made = folder.make_authority(args.name.as_deref(), now, lifetime, args.force)?;
    print(&(made + "\n"))?;
    remark(&format!("keep {} secret; next: hub cert issue NAME…", folder.authority_key().display()));
    Ok(())
}

fn issue(args: &IssueArgs, now: Timestamp) -> anyhow::Result<()> {
    let folder = CertFolder::of(&args.folder.dir);
    let _lock = folder.lock()?;
    let authority = args.ca.as_deref().map_or_else(|| folder.clone(), CertFolder::of);
    if args.init && !authority.has_authority()? {
        print(&(authority.make_authority(None, now, AUTHORITY_LIFETIME, false)? + "\n"))?;
    }
    let authority = authority.authority(now)?;
    let replace = match (args.force, args.renew) {
        (true, _) => Replace::Always,
        (_, true) => Replace::WhenDue,
        _ => Replace::Never,
    };
    let wanted = args.subjects();
    if replace == Replace::Never {
        // All or none, so that the command can be repeated with --renew or without the name.
        wanted.iter().try_for_each(|names| folder.check_free(&names.subject))?;
    }
    for names in &wanted {
        let issued = folder.issue(&authority, names, now, args.expires, replace)?;
        print(&(issued + "\n"))?;
    }
    if let Some(first) = wanted.first() {
        let cert = folder.leaf(&first.subject).join("tls.crt");
        remark(&format!("next: hub cert show {}", shown(&cert)));
    }
    Ok(())
}

impl IssueArgs {
    /// The names in each certificate, without repetitions.
    fn subjects(&self) -> Vec<CertNames> {
        let hosts: BTreeSet<Host> = self.host.iter().cloned().collect();
        let members = self.names.iter().map(|name| (name, name.clone()));
        let operators = self.operator.iter().map(|name| (name, "role/operator".to_owned()));
        let readers = self.reader.iter().map(|name| (name, "role/reader".to_owned()));
        let all: BTreeMap<&String, String> = members.chain(operators).chain(readers).collect();
        let names = |(subject, identity): (&String, String)| CertNames {
            subject: subject.clone(),
            identity: Some(identity),
            hosts: hosts.clone(),
        };
        all.into_iter().map(names).collect()
    }
}
