//! A program to run, as the command line or a file describes it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::pattern::LinePattern;

/// Most replicas of one program.
pub const MAX_REPLICAS: u16 = 100;

/// A program and how to run it.
#[derive(Debug, Clone)]
pub struct ProgramSpec {
    /// The service's name.
    pub name: String,
    /// The program and its arguments. `{port}` and `{host}` are replaced.
    pub command: Vec<OsString>,
    /// Its working folder; ours if unset.
    pub dir: Option<PathBuf>,
    /// Further variables.
    pub env: Vec<(String, String)>,
    /// Services that it calls.
    pub needs: Vec<String>,
    /// How many of it run.
    pub replicas: u16,
    /// The port of the first replica, if the program has one that can't be chosen; the others have those after it.
    pub port: Option<u16>,
    /// Variables that get the port, beside `PORT`.
    pub port_env: Vec<String>,
    /// The address that the program is to listen on. Unset: loopback if the registry is on loopback, else all.
    pub host: Option<String>,
    /// When it is ready.
    pub ready: Ready,
    /// After this, what keeps it from being ready is reported.
    pub ready_timeout: Duration,
    /// Files whose change restarts it: glob patterns.
    pub watch: Vec<String>,
    /// When it is restarted.
    pub restart: RestartPolicy,
    /// Whether the gateway removes the name from the path.
    pub strip: bool,
    /// Further hosts by which the gateway routes to it.
    pub hosts: Vec<String>,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Whether it reads our standard input.
    pub stdin: bool,
}

impl ProgramSpec {
    /// A program with the defaults.
    pub fn new(name: impl Into<String>, command: Vec<OsString>) -> Self {
        Self {
            name: name.into(),
            command,
            dir: None,
            env: Vec::new(),
            needs: Vec::new(),
            replicas: 1,
            port: None,
            port_env: Vec::new(),
            host: None,
            ready: Ready::Tcp,
            ready_timeout: Duration::from_secs(60),
            watch: Vec::new(),
            restart: RestartPolicy::No,
            strip: true,
            hosts: Vec::new(),
            grace: Duration::from_secs(10),
            stdin: false,
        }
    }
}

/// How it is known that a program is ready.
#[derive(Debug, Clone, Default)]
pub enum Ready {
    /// It accepts connections on its port.
    #[default]
    Tcp,
    /// It answers at this path with 2xx or 3xx.
    Path(String),
    /// It prints a line that matches.
    Output(LinePattern),
    /// As soon as it runs: it serves nobody, so it has no port and is not registered.
    None,
}

impl FromStr for Ready {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "tcp" => Ok(Self::Tcp),
            None if text == "none" => Ok(Self::None),
            None if text.starts_with('/') => Ok(Self::Path(text.to_owned())),
            Some(("path", path)) if path.starts_with('/') && !path.contains(char::is_whitespace) => {
                Ok(Self::Path(path.to_owned()))
            }
            Some(("output", pattern)) if !pattern.is_empty() => LinePattern::new(pattern).map(Self::Output),
            _ => Err("expected tcp, path:/PATH, output:REGEX or none".to_owned()),
        }
    }
}

/// Whether a program that has ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// If its exit code is not 0.
    OnFailure,
    /// Always.
    Always,
}

impl FromStr for RestartPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "no" | "never" => Ok(Self::No),
            "on-failure" => Ok(Self::OnFailure),
            "always" => Ok(Self::Always),
            _ => Err("expected no, on-failure or always".to_owned()),
        }
    }
}

/// A valid name for a service, made of any text, such as a folder's name. `None` if nothing is left.
pub fn name_from(text: &str) -> Option<String> {
    let mut name = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        match c {
            'a'..='z' | '0'..='9' => name.push(c),
            _ if name.ends_with('-') || name.is_empty() => {}
            _ => name.push('-'),
        }
    }
    name.truncate(63);
    let name = name.trim_end_matches('-');
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_folders() {
        for (folder, name) in [
            ("shop", Some("shop")),
            ("My Shop_2", Some("my-shop-2")),
            ("--x--", Some("x")),
            ("Übung", Some("bung")),
            ("...", None),
        ] {
            assert_eq!(name_from(folder).as_deref(), name);
        }
        assert_eq!(name_from(&"x".repeat(100)).unwrap().len(), 63);
    }

    #[test]
    fn readiness_and_restarts_are_parsed() {
        assert!(matches!("tcp".parse(), Ok(Ready::Tcp)));
        assert!(matches!("path:/up".parse(), Ok(Ready::Path(path)) if path == "/up"));
        assert!(matches!("output:listening on".parse(), Ok(Ready::Output(_))));
        for text in ["", "path:up", "path:/a b", "output:", "output:(", "http"] {
            assert!(text.parse::<Ready>().is_err(), "{text}");
        }
        assert_eq!("on-failure".parse(), Ok(RestartPolicy::OnFailure));
        assert!("sometimes".parse::<RestartPolicy>().is_err());
    }
}
