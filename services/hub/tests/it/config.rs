use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use hubspoke::config::{HubConfig, HubTable};
use hubspoke_chassis::config::ConfigSource;
use hubspoke_client::membership::default_route_ip;

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
    let registry = "http://127.0.0.1:20000";
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
fn only_the_first_of_several_registries_keeps_a_file() {
    let vars = [("HUB_LISTEN", "127.0.0.1:7000"), ("HUB_REGISTRY__DATA_DIR", "/tmp/x")];
    let config = load(&vars).unwrap();
    let (first, second) = (config.registry(1), config.registry(2));
    assert_eq!((first.common.listen, second.common.listen), (local(7000), local(0)));
    assert_eq!((first.own.data_dir, second.own.data_dir), (Some("/tmp/x".into()), None));
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
    assert_eq!(url(&[("HUB_LISTEN", "[::]:7000")]), "http://127.0.0.1:7000");
    assert_eq!(url(&[("HUB_LISTEN", "127.0.0.1:0")]), "http://127.0.0.1:20000", "port 0 names no registry");
    let both = [("HUB_LISTEN", "127.0.0.1:7000"), ("HUB_REGISTRY__URL", "http://r:1")];
    assert_eq!(url(&both), "http://r:1");
}

#[test]
fn keys_without_effect_are_refused() {
    for (name, value, instead) in [
        ("HUB_NAME", "x", "[hub]"),
        ("HUB_ADVERTISE", "x:1", "advertise_host"),
        ("HUB_CONTROL_LISTEN", "127.0.0.1:1", "listen and [hub]"),
    ] {
        let error = load(&[(name, value)]).unwrap_err();
        let why = "has no meaning for hub, which runs several services; set";
        assert_eq!(error, format!("{name}: {why} {instead} instead"));
    }
}

#[test]
fn replica_counts_are_bounded() {
    let error = load(&[("HUB_HUB__REGISTRIES", "17")]).unwrap_err();
    assert_eq!(error, "HUB_HUB__REGISTRIES: must be from 1 to 16");
    for replicas in ["0", "101"] {
        let error = load(&[("HUB_HUB__LOG_REPLICAS", replicas)]).unwrap_err();
        assert_eq!(error, "HUB_HUB__LOG_REPLICAS: must be from 1 to 100");
    }
}

#[tokio::test]
async fn a_platform_for_other_machines_registers_addresses_that_they_can_use() {
    let listens = |config: &HubConfig| {
        let HubTable { gateway, gateway_control, log, visit, .. } = &config.hub;
        [gateway, gateway_control, log, visit].map(ToString::to_string)
    };
    let mut config = load(&[("HUB_LISTEN", "0.0.0.0:20000"), ("HUB_HUB__VISIT", "127.0.0.1:7003")]).unwrap();
    assert_eq!(listens(&config), ["0.0.0.0:20001", "0.0.0.0:20011", "0.0.0.0:20002", "127.0.0.1:7003"]);
    config.choose_advertise_host().await;
    let registry = "http://127.0.0.1:20000";
    let route = default_route_ip().await.filter(IpAddr::is_ipv4).map(|ip| ip.to_string());
    assert_eq!(config.log(1, registry).common.advertise_host, route);
    assert_eq!(config.log(2, registry).common.advertise_host, route, "a replica on a free port");
    assert_eq!(config.visit(1, registry).common.advertise_host, None, "not on a wildcard");

    let mut config = load(&[("HUB_LISTEN", "[::]:20000"), ("HUB_ADVERTISE_HOST", "hub.example")]).unwrap();
    config.choose_advertise_host().await;
    assert_eq!(listens(&config), ["[::]:20001", "[::]:20011", "[::]:20002", "[::]:20003"]);
    assert_eq!(config.gateway(registry).common.advertise_host.as_deref(), Some("hub.example"));
    assert_eq!(listens(&load(&[("HUB_LISTEN", "127.0.0.1:7000")]).unwrap())[0], "127.0.0.1:20001");
}
