//! The arguments of `hub run`, `hub add` and `hub ship`.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use hubspoke_protocol::{RESERVED_NAMES, check_addr, check_name};
use hubspoke_run::Existing;
use hubspoke_run::file::read_env_file;
use hubspoke_run::ship::ShipConfig;
use hubspoke_run::spec::{MAX_REPLICAS, ProgramSpec, Ready, RestartPolicy, name_from};

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The service's name [default: the folder's]
    #[arg(short, long, value_name = "NAME", value_parser = service_name)]
    name: Option<String>,
    /// Services that it calls: it gets HUB_URL_<NAME> for each
    #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = check_need)]
    needs: Vec<String>,
    /// Run K replicas
    #[arg(short = 'k', long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_REPLICAS)))]
    replicas: u16,
    /// The program's port, if it has one that can't be chosen; further replicas have those after it
    #[arg(short, long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Also hand the port over in this variable
    #[arg(long, value_name = "VARIABLE")]
    port_env: Vec<String>,
    /// The address on which the program is to listen [default: 127.0.0.1, or 0.0.0.0 if the registry is elsewhere]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
    /// Sign that it is ready: tcp, path:/PATH, output:REGEX, or none for a program without a port
    #[arg(long, value_name = "HOW", default_value = "tcp")]
    ready: Ready,
    /// Report why it is not ready after this time
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    ready_timeout: Duration,
    /// Replace the replicas, one after the other, when a file that matches changes
    #[arg(short, long, value_name = "GLOB")]
    watch: Vec<String>,
    /// Start it again when it ends: no, on-failure or always
    #[arg(long, value_name = "WHEN", default_value = "no")]
    restart: RestartPolicy,
    /// Read variables for it from this file
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Run it in this folder
    #[arg(short, long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Let the gateway pass /NAME/… on unchanged instead of removing /NAME
    #[arg(long)]
    keep_prefix: bool,
    /// Let the gateway route this host to it
    #[arg(long = "route-host", value_name = "HOST", value_delimiter = ',')]
    hosts: Vec<String>,
    /// Time between SIGTERM and SIGKILL
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    grace: Duration,
    /// The program and its arguments; {port} and {host} in them are replaced
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// The service's name
    #[arg(value_parser = service_name)]
    name: String,
    /// Address at which it runs: HOST:PORT
    #[arg(value_name = "ADDR", value_parser = address)]
    addr: String,
    /// Check it at this path, which must answer with 2xx or 3xx, instead of connecting to its port
    #[arg(long = "check", value_name = "PATH", value_parser = path)]
    path: Option<String>,
    /// Let the gateway pass /NAME/… on unchanged instead of removing /NAME
    #[arg(long)]
    keep_prefix: bool,
    /// Let the gateway route this host to it
    #[arg(long = "route-host", value_name = "HOST", value_delimiter = ',')]
    hosts: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ShipArgs {
    /// Files to follow, across rotation and truncation [default: standard input]
    files: Vec<PathBuf>,
    /// The sender's name in the log [default: the first file's, or ship]
    #[arg(short, long, value_parser = service_name)]
    name: Option<String>,
    /// Ship also what the files contain already
    #[arg(long, requires = "files")]
    from_start: bool,
}

impl RunArgs {
    /// The program.
    ///
    /// # Errors
    /// If there is no name for it, or a file can't be read.
    pub(crate) fn spec(self) -> anyhow::Result<ProgramSpec> {
        let dir = self.dir.clone().unwrap_or_else(|| ".".into());
        let dir = dir.canonicalize().with_context(|| format!("can't use the folder {}", dir.display()))?;
        let program = self.command.first().map(PathBuf::from).unwrap_or_default();
        let name = match self.name {
            Some(name) => name,
            None => default_name(&dir, &program)?,
        };
        let env = self.env_file.as_deref().map(read_env_file).transpose()?.unwrap_or_default();
        Ok(ProgramSpec {
            dir: self.dir,
            env,
            needs: self.needs,
            replicas: self.replicas,
            port: self.port,
            port_env: self.port_env,
            host: self.host,
            ready: self.ready,
            ready_timeout: self.ready_timeout,
            watch: self.watch,
            restart: self.restart,
            strip: !self.keep_prefix,
            hosts: self.hosts,
            grace: self.grace,
            // In a terminal, it would be stopped when it reads: it is not in the foreground.
            stdin: self.replicas == 1 && !std::io::stdin().is_terminal(),
            ..ProgramSpec::new(name, self.command)
        })
    }
}

/// The folder's name; without one, that of the program.
fn default_name(dir: &Path, program: &Path) -> anyhow::Result<String> {
    let texts = [dir.file_name(), program.file_stem()];
    let names = texts.into_iter().flatten().filter_map(|text| name_from(&text.to_string_lossy()));
    match names.into_iter().next() {
        Some(name) if RESERVED_NAMES.contains(&name.as_str()) => {
            bail!("the folder's name, {name}, is reserved for the platform's own routes; pass --name")
        }
        Some(name) => Ok(name),
        None => bail!("the folder's name can't be that of a service; pass --name"),
    }
}

impl AddArgs {
    pub(crate) fn existing(self) -> Existing {
        let Self { name, addr, path, keep_prefix, hosts } = self;
        Existing { name, addr, path, strip: !keep_prefix, hosts }
    }
}

impl ShipArgs {
    /// The source of what is shipped.
    ///
    /// # Errors
    /// If it can't be named.
    pub(crate) fn config(self) -> anyhow::Result<ShipConfig> {
        let of_file = self.files.first().and_then(|file| name_from(&file.file_stem()?.to_string_lossy()));
        let name = self.name.or(of_file).unwrap_or_else(|| "ship".to_owned());
        Ok(ShipConfig { name, files: self.files, from_start: self.from_start })
    }
}

fn service_name(text: &str) -> Result<String, String> {
    check_name(text).map_err(|error| error.to_string())?;
    if RESERVED_NAMES.contains(&text) {
        return Err("it is reserved for the platform's own routes".to_owned());
    }
    Ok(text.to_owned())
}

fn check_need(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

fn address(text: &str) -> Result<String, String> {
    check_addr(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

fn path(text: &str) -> Result<String, String> {
    let valid = text.starts_with('/') && !text.contains(char::is_whitespace);
    if valid { Ok(text.to_owned()) } else { Err("expected a path such as /up".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_called_like_its_folder() {
        let name = |dir: &str, program: &str| default_name(Path::new(dir), Path::new(program));
        assert_eq!(name("/home/ada/My Shop", "python3").unwrap(), "my-shop");
        assert_eq!(name("/", "/usr/bin/server.py").unwrap(), "server");
        assert!(name("/srv/services", "x").is_err() || !RESERVED_NAMES.contains(&"services"));
        assert!(name("/", "..").is_err());
    }
}
