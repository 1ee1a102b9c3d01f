//! The variables and arguments that a program gets. Pure.

use std::ffi::OsString;

use crate::platform::{HostAddrs, is_loopback};
use crate::process::INSTANCE_VARIABLE;
use crate::spec::ProgramSpec;

/// The gateway if none is known yet.
const LOCAL_GATEWAY: &str = "http://127.0.0.1:20001";
const CONTAINER_GATEWAY: &str = "http://gateway:20001";

/// The values of the variables, besides the program's specification.
pub(super) struct Facts<'a> {
    pub(super) id: &'a str,
    pub(super) port: u16,
    pub(super) host: &'a HostAddrs,
    pub(super) gateway: Option<&'a str>,
    pub(super) otlp_endpoint: Option<&'a str>,
    /// The value of a variable of ours.
    pub(super) inherited: &'a (dyn Fn(&str) -> Option<String> + Sync),
}

/// The variables, in the order in which they override each other.
pub(super) fn variables(spec: &ProgramSpec, facts: &Facts<'_>) -> Vec<(String, OsString)> {
    let Facts { id, port, host, gateway, otlp_endpoint, inherited } = facts;
    let mut vars: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| vars.push((name.to_owned(), value.to_owned()));
    let port = port.to_string();
    set("PORT", &port);
    set("HOST", &host.listen);
    for name in &spec.port_env {
        set(name, &port);
    }
    set(INSTANCE_VARIABLE, id);
    let default = if is_loopback(&host.advertise) { LOCAL_GATEWAY } else { CONTAINER_GATEWAY };
    let own = inherited("HUB_GATEWAY_URL").filter(|_| gateway.is_none());
    let gateway = gateway.map(str::to_owned).or(own).unwrap_or_else(|| default.to_owned());
    set("HUB_GATEWAY_URL", &gateway);
    for need in &spec.needs {
        let name = need.to_ascii_uppercase().replace('-', "_");
        set(&format!("HUB_URL_{name}"), &format!("{gateway}/{need}"));
    }
    if inherited("OTEL_SERVICE_NAME").is_none() {
        set("OTEL_SERVICE_NAME", &spec.name);
    }
    let attributes = inherited("OTEL_RESOURCE_ATTRIBUTES").filter(|text| !text.is_empty());
    let instance = format!("service.instance.id={id}");
    let attributes = attributes.map_or_else(|| instance.clone(), |others| format!("{others},{instance}"));
    set("OTEL_RESOURCE_ATTRIBUTES", &attributes);
    if let Some(endpoint) = otlp_endpoint
        && inherited("OTEL_EXPORTER_OTLP_ENDPOINT").is_none()
    {
        set("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    }
    // Into a pipe, Python would print nothing before some kilobytes have come together.
    if inherited("PYTHONUNBUFFERED").is_none() {
        set("PYTHONUNBUFFERED", "1");
    }
    vars.extend(spec.env.iter().cloned());
    vars.into_iter().map(|(name, value)| (name, value.into())).collect()
}

/// The command with its placeholders replaced, and whether there was one for the port.
pub(super) fn command(spec: &ProgramSpec, port: u16, host: &HostAddrs) -> (Vec<OsString>, bool) {
    let mut found = false;
    let replaced = spec.command.iter().map(|arg| match arg.to_str() {
        Some(text) if text.contains("{port}") || text.contains("{host}") => {
            found |= text.contains("{port}");
            text.replace("{port}", &port.to_string()).replace("{host}", &host.listen).into()
        }
        _ => arg.clone(),
    });
    let replaced = replaced.collect();
    (replaced, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_gets_its_port_and_the_addresses_of_its_needs() {
        let mut spec = ProgramSpec::new("shop", vec!["serve".into(), "--bind={host}:{port}".into()]);
        spec.needs = vec!["user-db".to_owned()];
        spec.port_env = vec!["HTTP_PORT".to_owned()];
        spec.env = vec![("PORT".to_owned(), "own".to_owned())];
        let host = HostAddrs {
            listen: "127.0.0.1".to_owned(),
            advertise: "127.0.0.1".to_owned(),
            local: "127.0.0.1".parse().unwrap(),
        };
        let inherited = |name: &str| (name == "OTEL_RESOURCE_ATTRIBUTES").then(|| "a=b".to_owned());
        let facts = Facts {
            id: "shop-1",
            port: 21000,
            host: &host,
            gateway: None,
            otlp_endpoint: None,
            inherited: &inherited,
        };
        let vars = variables(&spec, &facts);
        let last =
            |name: &str| vars.iter().rfind(|(key, _)| key == name).map(|(_, value)| value.to_str().unwrap());
        assert_eq!(last("HTTP_PORT"), Some("21000"));
        assert_eq!(last("PORT"), Some("own"), "the user's own comes last");
        assert_eq!(last("HUB_URL_USER_DB"), Some("http://127.0.0.1:20001/user-db"));
        assert_eq!(last("OTEL_RESOURCE_ATTRIBUTES"), Some("a=b,service.instance.id=shop-1"));
        assert_eq!(last("OTEL_SERVICE_NAME"), Some("shop"));
        assert_eq!(last("OTEL_EXPORTER_OTLP_ENDPOINT"), None);
        let (command, found) = command(&spec, 21000, &host);
        assert_eq!((command, found), (vec!["serve".into(), "--bind=127.0.0.1:21000".into()], true));
    }
}
