//! Programs in TOML: a table `[programs.NAME]` each, with the options of `hub run` as keys.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::env_file::read_env_file;
use super::procfile::shell;
use crate::spec::{MAX_REPLICAS, ProgramSpec, Ready, RestartPolicy};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    programs: BTreeMap<String, Program>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Program {
    command: Command,
    dir: Option<PathBuf>,
    env_file: Option<PathBuf>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    needs: Vec<String>,
    replicas: Option<u16>,
    port: Option<u16>,
    #[serde(default)]
    port_env: Vec<String>,
    host: Option<String>,
    ready: Option<String>,
    #[serde(default, with = "humantime_serde::option")]
    ready_timeout: Option<Duration>,
    #[serde(default)]
    watch: Vec<String>,
    restart: Option<String>,
    keep_prefix: Option<bool>,
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default, with = "humantime_serde::option")]
    grace: Option<Duration>,
}

/// A text is for the shell; a list is the program and its arguments.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Command {
    Shell(String),
    Direct(Vec<String>),
}

/// The programs, or what is wrong.
pub(super) fn parse(text: &str, dir: &Path) -> Result<Vec<ProgramSpec>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
    file.programs.into_iter().map(|(name, program)| spec(&name, program, dir)).collect()
}

fn spec(name: &str, program: Program, dir: &Path) -> Result<ProgramSpec, String> {
    let at = |key: &str, why: &dyn std::fmt::Display| format!("programs.{name}.{key}: {why}");
    let command: Vec<OsString> = match program.command {
        Command::Shell(line) if line.trim().is_empty() => Vec::new(),
        Command::Shell(line) => shell(&line),
        Command::Direct(args) => args.into_iter().map(OsString::from).collect(),
    };
    if command.is_empty() {
        return Err(at("command", &"must not be empty"));
    }
    let default = ProgramSpec::new(name, command);
    let replicas = program.replicas.unwrap_or(1);
    if !(1..=MAX_REPLICAS).contains(&replicas) {
        return Err(at("replicas", &format_args!("must be from 1 to {MAX_REPLICAS}")));
    }
    if program.port == Some(0) {
        return Err(at("port", &"must not be 0; without it, a free one is chosen"));
    }
    let ready = program.ready.map_or(Ok(Ready::Tcp), |text| text.parse());
    let restart = program.restart.map_or(Ok(RestartPolicy::OnFailure), |text| text.parse());
    let mut env = match program.env_file {
        Some(file) => read_env_file(&dir.join(file))
            .map_err(|error| at("env_file", &hubspoke_client::with_causes(&error)))?,
        None => Vec::new(),
    };
    env.extend(program.env);
    for need in &program.needs {
        hubspoke_protocol::check_name(need).map_err(|error| at("needs", &error))?;
    }
    Ok(ProgramSpec {
        dir: Some(program.dir.map_or_else(|| dir.to_owned(), |own| dir.join(own))),
        env,
        needs: program.needs,
        replicas,
        port: program.port,
        port_env: program.port_env,
        host: program.host,
        ready: ready.map_err(|why| at("ready", &why))?,
        ready_timeout: program.ready_timeout.unwrap_or(default.ready_timeout),
        watch: program.watch,
        restart: restart.map_err(|why| at("restart", &why))?,
        strip: !program.keep_prefix.unwrap_or(false),
        hosts: program.hosts,
        grace: program.grace.unwrap_or(default.grace),
        ..default
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_has_the_options_of_hub_run() {
        let text = r#"
            [programs.shop]
            command = "python manage.py runserver $PORT"
            dir = "shop"
            needs = ["db", "log"]
            replicas = 3
            ready = "path:/up"
            ready_timeout = "2m"
            watch = ["**/*.py"]
            restart = "always"
            hosts = ["shop.example"]
            env = { DEBUG = "1" }
            grace = "30s"
            keep_prefix = true

            [programs.db]
            command = ["db", "--port={port}"]
            port = 7000
        "#;
        let programs = parse(text, Path::new("/app")).unwrap();
        let [db, shop] = programs.as_slice() else { panic!("{programs:?}") };
        assert_eq!((db.port, db.restart, db.strip), (Some(7000), RestartPolicy::OnFailure, true));
        assert_eq!(db.command, ["db", "--port={port}"]);
        assert_eq!(shop.dir, Some("/app/shop".into()));
        assert_eq!((shop.replicas, shop.restart, shop.strip), (3, RestartPolicy::Always, false));
        assert_eq!((shop.ready_timeout, shop.grace), (Duration::from_secs(120), Duration::from_secs(30)));
        assert!(matches!(&shop.ready, Ready::Path(path) if path == "/up"));
    }

    #[test]
    fn errors_name_the_key() {
        for (line, why) in [
            ("command = ''", "programs.web.command: must not be empty"),
            ("command = 'x'\nreplicas = 0", "programs.web.replicas: must be from 1 to 100"),
            ("command = 'x'\nready = 'soon'", "programs.web.ready: expected tcp"),
            ("command = 'x'\nneeds = ['A']", "programs.web.needs: "),
            ("command = 'x'\nport = 0", "programs.web.port: must not be 0"),
            ("command = 'x'\nenv_file = 'none'", "programs.web.env_file: can't use the variables in "),
            ("command = 'x'\ngrace = 'soon'", "grace"),
            ("replicas = 1", "missing field `command`"),
        ] {
            let error = parse(&format!("[programs.web]\n{line}\n"), Path::new("/app")).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
