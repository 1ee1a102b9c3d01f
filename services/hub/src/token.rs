//! `hub token`: makes, lists and revokes the tokens of a platform. What it writes is read again by the processes that
//! use it, within seconds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::{ArgGroup, Args, Subcommand};
use hubspoke_chassis::rights::{Role, TokenEntry, hash_of, random_token};
use jiff::{SignedDuration, Timestamp};

use self::edit::TokenLines;
use self::files::TokenFolder;
use crate::output::{print, remark};
use crate::table;

mod edit;
mod files;

/// The commands of `hub token`.
#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it; only its hash is kept
    New(NewArgs),
    /// Make tokens for a platform's own services, each in a file beside the tokens file; those that exist stay
    Init(InitArgs),
    /// List the tokens: name, rights, end
    List {
        #[command(flatten)]
        file: FileArg,
    },
    /// Remove a token; requests with it are refused within seconds
    Revoke {
        /// The name of the token, as `hub token list` shows it
        name: String,
        #[command(flatten)]
        file: FileArg,
    },
}

#[derive(Args)]
pub(crate) struct FileArg {
    /// Use this tokens file instead of the configured one (access.tokens_file, HUB_ACCESS__TOKENS_FILE)
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Args)]
#[command(group(ArgGroup::new("role").required(true).args(["member", "operator", "reader"])))]
pub(crate) struct NewArgs {
    /// May take part under this name, and write log entries; several names are allowed
    #[arg(long, value_name = "SERVICE", num_args = 1, value_delimiter = ',')]
    member: Vec<String>,
    /// A member's services may ask the gateway for this host; several are allowed. The hosts NAME.localhost and
    /// NAME.DOMAIN are theirs anyway
    #[arg(long, value_name = "HOST", num_args = 1, value_delimiter = ',')]
    host: Vec<String>,
    /// May drain and deregister, switch self-protection, and read log entries
    #[arg(long)]
    operator: bool,
    /// May read log entries
    #[arg(long)]
    reader: bool,
    /// Name of the token; otherwise that of its service or role
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Ends after this time, such as 90d; otherwise never
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    expires: Option<Duration>,
    /// Write the token to this file instead of printing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    file: FileArg,
}

#[derive(Args)]
pub(crate) struct InitArgs {
    /// A service that gets a token, in NAME.token
    #[arg(long, value_name = "NAME")]
    member: Vec<String>,
    /// An operator's token, in NAME.token
    #[arg(long, value_name = "NAME")]
    operator: Vec<String>,
    #[command(flatten)]
    file: FileArg,
}

/// Runs a command. `configured` is the tokens file in the configuration.
///
/// # Errors
/// If there is no tokens file, it can't be read or written, or the arguments make no valid token.
pub(crate) fn run(command: TokenCommand, configured: Option<&Path>) -> anyhow::Result<()> {
    let now = Timestamp::now();
    match command {
        TokenCommand::New(args) => new(args, configured, now),
        TokenCommand::Init(args) => init(&args, configured),
        TokenCommand::List { file } => {
            let tokens = TokenFolder::of(&path(file, configured)?).read()?;
            print(&list(&tokens, now)?)
        }
        TokenCommand::Revoke { name, file } => {
            let folder = TokenFolder::of(&path(file, configured)?);
            let _lock = folder.lock()?;
            let mut tokens = folder.read()?;
            if !tokens.remove(&name) {
                bail!("there is no token named {name:?}; see `hub token list`");
            }
            folder.write(&tokens)?;
            print(&format!("{name} is revoked\n"))
        }
    }
}

fn new(args: NewArgs, configured: Option<&Path>, now: Timestamp) -> anyhow::Result<()> {
    let folder = TokenFolder::of(&path(args.file, configured)?);
    let _lock = folder.lock()?;
    let mut tokens = folder.read()?;
    let role = match (args.member, args.operator) {
        (names, _) if !names.is_empty() => Role::Member(names),
        (_, true) => Role::Operator,
        _ => Role::Reader,
    };
    let name = args.name.unwrap_or_else(|| tokens.free_name(default_name(&role)));
    let expires = args.expires.map(|after| end(now, after)).transpose()?;
    let token = random_token();
    let entry = TokenEntry { name, role, hosts: args.host, expires, hash: hash_of(&token) };
    tokens.add(&entry)?;
    if let Some(out) = &args.out {
        files::write_secret(out, &token)?;
    }
    folder.write(&tokens)?;
    let until = entry.expires.map_or_else(|| "without an end".to_owned(), |at| format!("until {at}"));
    remark(&format!("{} is the token of: {}, {until}", entry.name, entry.role));
    if args.out.is_none() { print(&format!("{token}\n")) } else { Ok(()) }
}

fn init(args: &InitArgs, configured: Option<&Path>) -> anyhow::Result<()> {
    let path = match &args.file.file {
        Some(file) => file,
        None => configured.ok_or_else(no_file)?,
    };
    let folder = TokenFolder::of(path);
    let _lock = folder.lock()?;
    let mut tokens = folder.read()?;
    let members = args.member.iter().map(|name| (name, Role::Member(vec![name.clone()])));
    let operators = args.operator.iter().map(|name| (name, Role::Operator));
    let mut made = Vec::new();
    for (name, role) in members.chain(operators) {
        let file = folder.beside(&format!("{name}.token"));
        if tokens.has(name) && file.try_exists().with_context(|| format!("can't read {}", file.display()))? {
            continue;
        }
        let token = random_token();
        tokens.remove(name);
        tokens.add(&TokenEntry {
            name: name.clone(),
            role,
            hosts: Vec::new(),
            expires: None,
            hash: hash_of(&token),
        })?;
        files::write_secret(&file, &token)?;
        made.push(name.as_str());
    }
    if made.is_empty() && folder.exists() {
        return print(&format!("{}: nothing to do\n", path.display()));
    }
    folder.write(&tokens)?;
    print(&format!("{}: made {}\n", path.display(), made.join(", ")))
}

fn list(tokens: &TokenLines, now: Timestamp) -> anyhow::Result<String> {
    let tokens = tokens.parse()?;
    let rows = tokens.entries().into_iter().map(|entry| {
        let (role, services) = match &entry.role {
            Role::Member(names) => ("member", names.join(", ")),
            Role::Operator => ("operator", String::new()),
            Role::Reader => ("reader", String::new()),
        };
        let end = match entry.expires {
            None => "never".to_owned(),
            Some(at) if entry.is_expired(now) => format!("{at} (expired)"),
            Some(at) => at.to_string(),
        };
        vec![entry.name.clone(), role.to_owned(), services, entry.hosts.join(", "), end]
    });
    Ok(table::layout(&["NAME", "ROLE", "SERVICES", "HOSTS", "EXPIRES"], &rows.collect::<Vec<_>>()))
}

fn default_name(role: &Role) -> &str {
    match role {
        Role::Member(names) => names.first().map_or("member", |name| name),
        Role::Operator => "operator",
        Role::Reader => "reader",
    }
}

/// In whole seconds.
fn end(now: Timestamp, after: Duration) -> anyhow::Result<Timestamp> {
    let after = SignedDuration::try_from(after).ok().filter(|after| !after.is_zero());
    let end = after.and_then(|after| now.checked_add(after).ok());
    let end = end.and_then(|end| Timestamp::from_second(end.as_second()).ok());
    end.ok_or_else(|| anyhow!("--expires: not a time that a token can last"))
}

fn path(file: FileArg, configured: Option<&Path>) -> anyhow::Result<PathBuf> {
    file.file.or_else(|| configured.map(Path::to_owned)).ok_or_else(no_file)
}

fn no_file() -> anyhow::Error {
    anyhow!(
        "no tokens file is configured; pass --file FILE, or set access.tokens_file (HUB_ACCESS__TOKENS_FILE)"
    )
}
