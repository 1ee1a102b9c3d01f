//! Configuration: precedence, types, and errors that name the file or variable.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hubspoke_chassis::config::{Common, Config, ConfigSource, Layers, Process, Secret, Table, networks};
use hubspoke_chassis::{health, metrics};
use serde::{Deserialize, Serialize};

const PROCESS: Process = Process::new("log", "0");
const REGISTRY: Process = Process::new("registry", "0");

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LogTable {
    file: PathBuf,
    #[serde(with = "humantime_serde")]
    flush: Duration,
    max: bytesize::ByteSize,
    peers: Vec<String>,
    attempts: u32,
}

impl Default for LogTable {
    fn default() -> Self {
        Self {
            file: "services.log".into(),
            flush: Duration::from_secs(1),
            max: bytesize::ByteSize::kib(64),
            peers: vec![],
            attempts: 3,
        }
    }
}

impl Table for LogTable {
    fn check(&self) -> Result<(), (String, String)> {
        if self.attempts == 0 { Err(("attempts".into(), "must be at least 1".into())) } else { Ok(()) }
    }
}

fn vars(vars: &[(&str, &str)]) -> ConfigSource {
    let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    ConfigSource { vars, folder: "no-such-folder".into(), file: None }
}

fn file(folder: &Path, text: &str) -> ConfigSource {
    std::fs::write(folder.join("log.toml"), text).unwrap();
    ConfigSource { folder: folder.to_owned(), ..ConfigSource::default() }
}

fn load(source: &ConfigSource) -> Result<Config<LogTable>, String> {
    Layers::config::<LogTable>(&PROCESS, source).map(|(config, _)| config).map_err(|error| error.to_string())
}

#[test]
fn defaults_then_file_then_environment() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = file(
        folder.path(),
        "listen = '127.0.0.1:1'\nshutdown_grace = '3s'\n[registry]\nurl = 'http://r:1'\n[log]\nfile = 'a.log'\nmax = '1MiB'\n",
    );
    source.vars =
        vars(&[("HUB_REGISTRY__URL", "http://r:2"), ("HUB_LOG__FLUSH", "5ms"), ("OTHER", "x")]).vars;
    let config = load(&source).unwrap();
    assert_eq!(config.common.name, "log");
    assert_eq!(config.common.listen.port(), 1);
    assert_eq!(config.common.shutdown_grace, Duration::from_secs(3));
    assert_eq!(config.common.registry.url, "http://r:2");
    assert_eq!(config.own.file, Path::new("a.log"));
    assert_eq!(config.own.flush, Duration::from_millis(5));
    assert_eq!(config.own.max.as_u64(), 1 << 20);
    assert_eq!(config.own.attempts, 3);
}

#[test]
fn a_variable_has_the_type_of_its_default() {
    let source = vars(&[
        ("HUB_REGISTRY__TOKEN", "0123"),
        ("HUB_LOG__ATTEMPTS", "7"),
        ("HUB_LOG__PEERS", "a, b,"),
        ("HUB_ADVERTISE", ""),
        ("HUB_LOG__FILE", "42"),
    ]);
    let config = load(&source).unwrap();
    assert_eq!(config.common.registry.token.unwrap().expose(), "0123", "digits stay text");
    assert_eq!(
        (config.own.attempts, config.own.peers.as_slice()),
        (7, &["a".to_owned(), "b".to_owned()][..])
    );
    assert_eq!(config.common.advertise, None, "an empty variable is unset");
    assert_eq!(config.own.file, Path::new("42"));
    assert_eq!(load(&vars(&[("HUB_LOG__PEERS", "[\"x\", \"y\"]")])).unwrap().own.peers, ["x", "y"]);
}

#[test]
fn errors_name_the_variable() {
    for (name, value, expected) in [
        ("HUB_LISTENN", "x", "did you mean HUB_LISTEN?"),
        ("HUB_REGISTRY_URL", "x", "did you mean HUB_REGISTRY__URL?"),
        ("HUB_TOKEN_FILE", "x", "did you mean HUB_REGISTRY__TOKEN_FILE?"),
        ("HUB_LOG__ATTEMPT", "x", "did you mean HUB_LOG__ATTEMPTS?"),
        ("HUB_XYZZY", "x", "unknown key; known keys: "),
        ("HUB_LOG__FILES", "x", "unknown key; known keys: file"),
        ("HUB_REGISTRY__ALLOW_ADDRS", "x", "unknown key; known keys: token, token_file, url"),
        ("HUB_LOG__FLUSH", "fast", "expected"),
        (
            "HUB_LISTEN",
            "here",
            "\"here\" is not valid: expected an IP address and a port, for example 127.0.0.1:20002",
        ),
        (
            "HUB_CONTROL_LISTEN",
            "localhost:1",
            "expected an IP address and a port, for example 127.0.0.1:20002",
        ),
        ("HUB_LOG__ATTEMPTS", "-1", "expected a whole number from 0 to 4294967295, for example 3"),
        ("HUB_LOG__ATTEMPTS", "many", "\"many\" is not valid: expected a whole number"),
        ("HUB_SHUTDOWN_GRACE", "5", "for example 10s"),
        ("HUB_LOG__MAX", "much", "expected a size, for example 64"),
        ("HUB_LOG__ATTEMPTS", "0", "must be at least 1"),
        ("HUB_NAME", "Log", "is not a valid service name"),
        ("HUB_ADVERTISE", "here", "is not a valid address"),
        ("HUB_ADVERTISE", "0.0.0.0:20002", "every address of a machine"),
        ("HUB_ADVERTISE", "[::]:20002", "every address of a machine"),
        ("HUB_ADVERTISE", "0:20002", "four decimal numbers"),
        ("HUB_REGISTRY__URL", "registry:20000", "is not a valid URL; expected http://host:port"),
        ("HUB_REGISTRY__URL", "https://registry", "https:// needs a certificate of this process"),
        ("HUB_REGISTRY__URL", "http://r:99999", "is not a valid URL; expected http://host:port"),
        ("HUB_REGISTRY__URL", "http://r:0", "is not a valid URL; expected http://host:port"),
        ("HUB_REGISTRY__URL", "http://:20000", "is not a valid URL; expected http://host:port"),
        ("HUB_REGISTRY__URL", "http://r:1/?x", "is not a valid URL; expected http://host:port"),
        ("HUB_REGISTRY__URL", "http://r:1/#x", "is not a valid URL; expected http://host:port"),
        ("HUB_REGISTRY__URL", "http://me@r:1", "is not a valid URL; expected http://host:port"),
        ("HUB_REGISTRY__URL", "http://:hush@r:1", "is not a valid URL; expected http://host:port"),
        ("HUB_REGISTRY__URL", "http://0.0.0.0:20000", "every address of a machine"),
        ("HUB_REGISTRY__URL", "http://0:20000", "every address of a machine"),
        ("HUB_REGISTRY__URL", "http://[::]:20000", "every address of a machine"),
        ("HUB_REGISTRY__URL", "http://224.0.0.1:20000", "multicast or broadcast"),
        ("HUB_TELEMETRY__LOG", "a=b=c", "expected one of"),
        ("HUB_REGISTRY", "x", "expected a table of keys"),
        ("HUB_ADVERTISE_HOST", "0.0.0.0", "every address of a machine"),
        ("HUB_ADVERTISE", "10.0.0.7", "a host alone is set as advertise_host"),
        ("HUB_ADVERTISE", "fd00::5:8080", "stands in brackets"),
        ("HUB_ADVERTISE", "fe80::1:20002", "link-local"),
    ] {
        let error = load(&vars(&[(name, value)])).unwrap_err();
        assert!(
            error.starts_with(&format!("{name}: ")) && error.contains(expected),
            "{name}={value}: {error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let error = load(&vars(&[("HUB_LOG", "x"), ("HUB_LOG__FILE", "y")])).unwrap_err();
    assert!(error.starts_with("HUB_LOG__FILE: "), "{error}");
}

#[test]
fn names_of_platform_routes_are_reserved() {
    use hubspoke_protocol::{DIRECTORY_PATH, HEART_BEAT_PATH, SERVICES_PATH};
    for path in [
        health::LIVEZ_PATH,
        health::READYZ_PATH,
        metrics::METRICS_PATH,
        HEART_BEAT_PATH,
        DIRECTORY_PATH,
        SERVICES_PATH,
    ] {
        let error = load(&vars(&[("HUB_NAME", &path[1..])])).unwrap_err();
        assert!(
            error.starts_with("HUB_NAME: ") && error.contains("is reserved for the platform's own routes"),
            "{error}"
        );
    }
    assert!(load(&vars(&[("HUB_NAME", "service")])).is_ok());
}

#[test]
fn a_registry_url_may_have_a_name_an_address_and_a_path() {
    for url in ["http://registry", "http://registry:20000/", "http://[::1]:1", "http://proxy:80/registry"] {
        assert_eq!(load(&vars(&[("HUB_REGISTRY__URL", url)])).unwrap().common.registry.url, url);
    }
}

#[test]
fn errors_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    for (text, expected) in [
        ("lissten = 'x'", "lissten: unknown key"),
        ("[log]\nfiles = 'x'", "log.files: unknown key"),
        ("[log]\nflush = 'soon'", "log.flush: "),
        ("[registry]\nallow_addrs = []", "registry.allow_addrs: unknown key"),
        ("log = 3", "log: must be a table"),
        ("listen = ", "log.toml: line 1, column 10: not valid TOML: "),
        ("name = 'log'\nlisten = 127.0.0.1:1", "line 2"),
        ("listenn = '127.0.0.1:1'", "did you mean listen?"),
    ] {
        let error = load(&file(folder.path(), text)).unwrap_err();
        assert!(error.contains("log.toml") && error.contains(expected), "{text}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let missing = ConfigSource { file: Some(folder.path().join("none.toml")), ..ConfigSource::default() };
    let error = load(&missing).unwrap_err();
    assert!(error.contains("none.toml: can't be read: No such file"), "{error}");
}

#[test]
fn the_registry_has_the_link_keys_beside_its_own() {
    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Own {
        allow_addrs: Vec<String>,
    }
    impl Table for Own {}
    let source = vars(&[("HUB_REGISTRY__TOKEN", "t"), ("HUB_REGISTRY__ALLOW_ADDRS", "10.0.0.0/8")]);
    let (config, layers) = Layers::config::<Own>(&REGISTRY, &source).unwrap();
    assert_eq!(config.own.allow_addrs, ["10.0.0.0/8"]);
    assert_eq!(config.common.registry.token, Some(Secret::new("t")));
    let shown = layers.show().unwrap();
    assert!(shown.contains("registry.token = [redacted]"), "{shown}");
    let wrong = Layers::config::<Own>(&REGISTRY, &vars(&[("HUB_REGISTRY__ALLOW", "x")])).unwrap_err();
    assert!(wrong.to_string().starts_with("HUB_REGISTRY__ALLOW: unknown key"), "{wrong}");
}

#[test]
fn a_table_that_services_share_stands_beside_their_own() {
    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Engine {
        endpoints: Vec<String>,
    }
    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Own {
        file: String,
        engine: Engine,
    }
    impl Table for Own {
        const BESIDE: &'static [&'static str] = &["engine"];

        fn check(&self) -> Result<(), (String, String)> {
            match self.engine.endpoints.first() {
                Some(first) if first == "x" => Err(("engine.endpoints".to_owned(), "is x".to_owned())),
                _ => Ok(()),
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let load = |text: &str| {
        let config = Layers::config::<Own>(&PROCESS, &file(folder.path(), text));
        config.map(|(config, _)| config.own).map_err(|error| error.to_string())
    };
    assert_eq!(load("[engine]\nendpoints = 'a,b'").unwrap().engine.endpoints, ["a", "b"]);
    let (config, _) = Layers::config::<Own>(&PROCESS, &vars(&[("HUB_ENGINE__ENDPOINTS", "c")])).unwrap();
    assert_eq!(config.own.engine.endpoints, ["c"]);
    for (text, expected) in [
        ("[engine]\nendpoints = 'x'", "log.toml: engine.endpoints: is x"),
        ("[engine]\nendpoint = 'x'", "log.toml: engine.endpoint: unknown key; known keys: endpoints;"),
        ("[engine]\nendpoints = 7", "log.toml: engine.endpoints: 7 is not valid: expected a list"),
        ("[log]\nfil = 'x'", "log.toml: log.fil: unknown key; known keys: file;"),
        ("[log.engine]\nendpoints = 'x'", "log.toml: log.engine: is set as [engine]"),
    ] {
        let error = load(text).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn each_value_is_shown_with_its_origin() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = file(folder.path(), "[log]\nfile = 'a.log'\n");
    source.vars = vars(&[("HUB_REGISTRY__TOKEN", "hush"), ("HUB_LOG__ATTEMPTS", "4")]).vars;
    let (config, layers) = Layers::config::<LogTable>(&PROCESS, &source).unwrap();
    let shown = layers.show().unwrap();
    let line = |key: &str| shown.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
    assert!(line("log.file").ends_with("log.toml") && line("log.file").contains("\"a.log\""), "{shown}");
    assert!(line("log.attempts").contains("= 4 ") && line("log.attempts").ends_with("# HUB_LOG__ATTEMPTS"));
    assert!(line("listen").ends_with("# default"));
    assert!(line("advertise").contains("(unset)"));
    assert!(line("shutdown_grace").contains("\"10s\""));
    assert!(!shown.contains("hush") && !format!("{config:?}").contains("hush"), "a secret shows");
}

#[test]
fn the_token_is_read_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let mut link = Common::of(&PROCESS).unwrap().registry;
    link.token_file = Some(path.clone());
    assert!(link.read_token().unwrap_err().to_string().contains("No such file"));
    std::fs::write(&path, " \n").unwrap();
    assert!(link.read_token().unwrap_err().to_string().contains("the file is empty"));
    std::fs::write(&path, "hush\n").unwrap();
    assert_eq!(&*link.read_token().unwrap().unwrap().get(), "hush");
    let both = vars(&[("HUB_REGISTRY__TOKEN", "x"), ("HUB_REGISTRY__TOKEN_FILE", "y")]);
    assert!(load(&both).unwrap_err().starts_with("HUB_REGISTRY__TOKEN_FILE: registry.token is set too"));
}

#[test]
fn an_address_with_a_port_may_come_without_brackets_if_it_has_one_meaning() {
    let advertise = |text: &str| load(&vars(&[("HUB_ADVERTISE", text)])).unwrap().common.advertise.unwrap();
    assert_eq!(advertise("fd00::5:20002"), "[fd00::5]:20002", "$(POD_IP):20002");
    assert_eq!(advertise("2001:db8:1:2:3:4:5:6:80"), "[2001:db8:1:2:3:4:5:6]:80");
    assert_eq!(advertise("[fd00::5]:8080"), "[fd00::5]:8080");
    assert_eq!(advertise("10.0.0.7:80"), "10.0.0.7:80");
    let both = vars(&[("HUB_ADVERTISE", "10.0.0.7:80"), ("HUB_ADVERTISE_HOST", "10.0.0.7")]);
    assert!(load(&both).unwrap_err().contains("advertise is set too"));
}

#[test]
fn networks_may_be_single_addresses() {
    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Own {
        #[serde(deserialize_with = "networks")]
        from: Vec<ipnet::IpNet>,
    }
    impl Table for Own {}
    let read = |text: &str| {
        let config = Layers::config::<Own>(&PROCESS, &vars(&[("HUB_LOG__FROM", text)]));
        config.map(|(config, _)| config.own.from.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(read("10.0.0.0/8, 10.0.0.7 ,fd00::/8").unwrap(), ["10.0.0.0/8", "10.0.0.7/32", "fd00::/8"]);
    let error = read("10.0.0.0/8,here").unwrap_err().to_string();
    assert!(error.starts_with("HUB_LOG__FROM: ") && error.contains("\"here\" is not a network"), "{error}");
}
