//! The configuration: its defaults, its sources, and what is refused.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use hubspoke_chassis::Table;
use hubspoke_chassis::config::{ConfigSource, Layers};
use hubspoke_gateway::config::{EncodedSlash, ServiceConfig, Sticky};
use hubspoke_gateway::{GatewayConfig, PROCESS};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../config")
}

fn with(vars: &[(&str, &str)]) -> Result<GatewayConfig, String> {
    let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let source = ConfigSource { file: None, folder: folder(), vars };
    Layers::config::<GatewayConfig>(&PROCESS, &source)
        .map(|(config, _)| config.own)
        .map_err(|e| e.to_string())
}

#[test]
fn the_shipped_file_has_the_defaults() {
    assert_eq!(with(&[]), Ok(GatewayConfig::default()));
}

#[test]
fn a_host_is_given_to_one_service_only() {
    let hosts = with(&[("HUB_GATEWAY__SERVICES__SHOP__HOSTS", "a.example, B.example")]).unwrap();
    let expected = Some(vec!["a.example".to_owned(), "B.example".to_owned()]);
    assert_eq!(hosts.services["shop"].hosts, expected);
    for (name, value) in [
        ("HUB_GATEWAY__SERVICES__ZOO__HOSTS", "b.EXAMPLE"),
        ("HUB_GATEWAY__SERVICES__ZOO__HOSTS", "localhost"),
        ("HUB_GATEWAY__SERVICES__ZOO__HOSTS", "127.0.0.1"),
        ("HUB_GATEWAY__HOSTS", "b.example"),
        ("HUB_GATEWAY__DOMAIN", "b.example"),
        ("HUB_GATEWAY__DOMAIN", "*.example"),
    ] {
        let error = with(&[("HUB_GATEWAY__SERVICES__SHOP__HOSTS", "a.example, B.example"), (name, value)]);
        assert!(error.is_err(), "{name}={value}");
    }
}

#[test]
fn what_a_service_has_beside_routes_is_checked() {
    let key = |rest: &str| format!("HUB_GATEWAY__SERVICES__SHOP__{rest}");
    let origins = "https://a.example, https://b.example:8443";
    let set = with(&[
        (&key("SLASH"), "true"),
        (&key("COMPRESS"), "true"),
        (&key("CORS__ORIGINS"), origins),
        (&key("CORS__MAX_AGE"), "1h"),
        (&key("AUTH__SERVICE"), "login"),
        (&key("AUTH__HEADERS"), "x-user,Remote-User"),
    ]);
    let shop = set.unwrap().services["shop"].clone();
    assert_eq!(shop.cors.unwrap().origins, ["https://a.example", "https://b.example:8443"]);
    assert_eq!(shop.auth.unwrap().headers, ["x-user", "Remote-User"]);
    for (first, second, named) in [
        (("CORS__ORIGINS", "*"), ("CORS__CREDENTIALS", "true"), "cors.credentials"),
        (("CORS__MAX_AGE", "1h"), ("SLASH", "true"), "cors.origins"),
        (("CORS__ORIGINS", "*"), ("CORS__METHODS", "*"), "cors.methods"),
        (("AUTH__SERVICE", "shop"), ("SLASH", "true"), "auth.service"),
        (("AUTH__SERVICE", "login"), ("AUTH__HEADERS", "host"), "auth.headers"),
        (("AUTH__PATH", "/x"), ("SLASH", "true"), "auth.service"),
        (("AUTH__SERVICE", "login"), ("AUTH__NONE", "1"), "none"),
    ] {
        let error = with(&[(&key(first.0), first.1), (&key(second.0), second.1)]).unwrap_err();
        let named = named.to_uppercase().replace('.', "__");
        assert!(error.to_uppercase().replace('.', "__").contains(&named), "{named}: {error}");
    }
}

#[test]
fn variables_override_the_file() {
    let config = with(&[("HUB_GATEWAY__EXPOSE", "*"), ("HUB_GATEWAY__TIMEOUTS__FIRST_BYTE", "5s")]).unwrap();
    assert!(config.exposes_all());
    assert_eq!(config.timeouts.first_byte, Duration::from_secs(5));
}

#[test]
fn an_error_names_the_invalid_key() {
    for (name, value) in [
        ("HUB_GATEWAY__EXPOSE", "Log"),
        ("HUB_GATEWAY__ACCESS_LOG", "2"),
        ("HUB_GATEWAY__LIMITS__HEADER_COUNT", "0"),
        ("HUB_GATEWAY__LIMITS__HEADER_SIZE", "1B"),
        ("HUB_GATEWAY__TIMEOUTS__IDLE", "0s"),
        ("HUB_GATEWAY__BALANCE", "fair"),
        ("HUB_GATEWAY__TLS__REDIRECT", "true"),
        ("HUB_GATEWAY__TLS__HSTS", "1d"),
        ("HUB_GATEWAY__TLS__CLIENT_CA", "ca.pem"),
        ("HUB_GATEWAY__TLS__PUBLIC_PORT", "0"),
        ("HUB_GATEWAY__TLS__CLIENT_AUTH", "maybe"),
        ("HUB_GATEWAY__TLS__ACME__HOSTS", "*.shop.example"),
        ("HUB_GATEWAY__TLS__ACME__CONTACT", "admin"),
        ("HUB_GATEWAY__TLS__ACME__DIRECTORY", "http://acme.example"),
        ("HUB_GATEWAY__NONE", "1"),
    ] {
        let error = with(&[(name, value)]).unwrap_err();
        let key = name.rsplit("__").next().unwrap();
        assert!(error.to_uppercase().contains(key), "{name}: {error}");
    }
}

#[test]
fn the_table_of_a_service_is_read() {
    let toml = r#"
        sticky = "cookie:session"
        encoded_slash = "pass"
        first_byte = "60s"
        total = "90s"
        body_rate = "1KiB"
    "#;
    let own = service_config(toml);
    assert_eq!(own.sticky, Some(Sticky::Cookie("session".to_owned())));
    assert_eq!(own.encoded_slash, EncodedSlash::Pass);
    assert_eq!(own.first_byte, Some(Duration::from_secs(60)));
    assert_eq!((own.body_rate, own.idle), (Some(ByteSize::kib(1)), None));
    for bad in ["header:a b", "cookie:", "session"] {
        assert!(Sticky::try_from(bad.to_owned()).is_err(), "{bad}");
    }
    assert_eq!(String::from(Sticky::try_from("header:x-user".to_owned()).unwrap()), "header:x-user");
    let mut unknown = GatewayConfig::default();
    unknown.services.insert("No".to_owned(), ServiceConfig::default());
    assert_eq!(unknown.check().unwrap_err().0, "services");
}

#[test]
fn timeouts_that_contradict_each_other_are_refused() {
    let refused = |change: fn(&mut ServiceConfig)| {
        let mut config = GatewayConfig::default();
        change(config.services.entry("svc".to_owned()).or_default());
        config.check().unwrap_err().0
    };
    assert_eq!(refused(|own| own.connect = Some(Duration::ZERO)), "services.svc.connect");
    assert_eq!(refused(|own| own.idle = Some(Duration::ZERO)), "services.svc.idle");
    assert_eq!(refused(|own| own.total = Some(Duration::from_secs(1))), "services.svc.total");
    assert_eq!(refused(|own| own.first_byte = Some(Duration::from_secs(91))), "services.svc.first_byte");
    let mut config = GatewayConfig::default();
    config.timeouts.first_byte = config.timeouts.total + Duration::from_millis(1);
    assert_eq!(config.check().unwrap_err().0, "timeouts.first_byte");
}

/// Reads a service's table from a configuration file, as users write it.
fn service_config(table: &str) -> ServiceConfig {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("[gateway.services.store]\n{table}")).unwrap();
    let source = ConfigSource { file: Some(file.path().to_owned()), folder: folder(), vars: Vec::new() };
    let (config, _) = Layers::config::<GatewayConfig>(&PROCESS, &source).unwrap();
    config.own.services["store"].clone()
}
