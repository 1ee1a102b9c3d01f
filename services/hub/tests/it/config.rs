use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use hubspoke::config::HubConfig;
use hubspoke_chassis::config::ConfigSource;

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn load(vars: &[(&str, &str)]) -> Result<HubConfig, String> {
    let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let source = ConfigSource { vars, folder: "none".into(), file: None };
    HubConfig::load(&source).map(|(config, _)| config).map_err(|error| error.to_string())
}

#[test]
fn each_replica_has_its_own_port_and_file() {
    let config = load(&[("HUB_HUB__DATA_DIR", "/tmp/x"), ("HUB_LOG__FILE", "a/entries.log")]).unwrap();
    let registry = local(20000);
    let (first, second) = (config.log(1, registry), config.log(2, registry));
    assert_eq!(first.common.listen, local(20002));
    assert_eq!(second.common.listen, local(0));
    assert_eq!(first.own.file, PathBuf::from("/tmp/x/log-1/entries.log"));
    assert_eq!(second.own.file, PathBuf::from("/tmp/x/log-2/entries.log"));
    assert_eq!(second.common.registry.url, "http://127.0.0.1:20000");
    assert_eq!(config.gateway(registry).common.control_listen, Some(local(20011)));
    assert_eq!(config.gateway(registry).own.expose, ["*"]);
}

#[test]
fn the_config_file_loads_as_shipped_and_with_every_key_set() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    let text = std::fs::read_to_string(folder.join("hub.toml")).unwrap();
    HubConfig::load(&ConfigSource { folder, ..ConfigSource::default() }).unwrap();
    // `#key = …` is a setting at its default; `# ` begins a sentence.
    let setting =
        |line: &str| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).map(str::to_owned);
    let all: Vec<String> =
        text.lines().map(|line| setting(line).unwrap_or_else(|| line.to_owned())).collect();
    let whole = tempfile::tempdir().unwrap();
    std::fs::write(whole.path().join("hub.toml"), all.join("\n")).unwrap();
    let source = ConfigSource { folder: whole.path().to_owned(), ..ConfigSource::default() };
    assert_eq!(HubConfig::load(&source).unwrap().0.hub.log_replicas, 3);
}

#[test]
fn commands_look_where_the_same_settings_listen() {
    let url = |vars: &[(&str, &str)]| load(vars).unwrap().common.registry.url;
    assert_eq!(url(&[]), "http://127.0.0.1:20000");
    assert_eq!(url(&[("HUB_LISTEN", "127.0.0.1:7000")]), "http://127.0.0.1:7000");
    assert_eq!(url(&[("HUB_LISTEN", "[::]:7000")]), "http://[::1]:7000");
    assert_eq!(url(&[("HUB_LISTEN", "127.0.0.1:0")]), "http://127.0.0.1:20000", "port 0 names no registry");
    let both = [("HUB_LISTEN", "127.0.0.1:7000"), ("HUB_REGISTRY__URL", "http://r:1")];
    assert_eq!(url(&both), "http://r:1");
}

#[test]
fn keys_without_effect_are_refused() {
    for (name, value) in [("HUB_NAME", "x"), ("HUB_ADVERTISE", "x:1"), ("HUB_CONTROL_LISTEN", "127.0.0.1:1")]
    {
        let error = load(&[(name, value)]).unwrap_err();
        let why = "has no meaning for hub, which runs several services; set listen and [hub] instead";
        assert_eq!(error, format!("{name}: {why}"));
    }
}

#[test]
fn replica_counts_are_bounded() {
    for replicas in ["0", "101"] {
        let error = load(&[("HUB_HUB__LOG_REPLICAS", replicas)]).unwrap_err();
        assert_eq!(error, "HUB_HUB__LOG_REPLICAS: must be from 1 to 100");
    }
}
