//! Compose, the Kubernetes manifests and the Dockerfile agree with the binaries: every setting goes through the real
//! configuration loader, and every port, image name, volume and grace period is compared with the result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hubspoke_chassis::config::{Common, ConfigError, ConfigSource, Layers};
use hubspoke_chassis::{Process, Table, telemetry};
use serde_json::Value;

mod comments;
mod overlays;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Each service with its public port and the port of its control routes.
const SERVICES: [(&str, u16, u16); 4] =
    [("registry", 20000, 20000), ("gateway", 20001, 20011), ("log", 20002, 20002), ("visit", 20003, 20003)];

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub(crate) fn documents(path: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn compose() -> Value {
    serde_saphyr::from_str(&text("docker-compose.yml")).unwrap()
}

/// How a container is started.
#[derive(Debug, Default)]
pub(crate) struct Container {
    image: String,
    pub(crate) vars: BTreeMap<String, String>,
    ports: Vec<u16>,
    /// Writable folders.
    volumes: Vec<String>,
    grace: Duration,
}

impl Container {
    fn of(name: &str) -> Self {
        Self { vars: image_vars(name), ..Self::default() }
    }
}

/// `ENV` and `EXPOSE` of a stage in the Dockerfile, including those of the stages below it.
fn stage(name: &str) -> (BTreeMap<String, String>, Vec<u16>) {
    let (mut vars, mut ports) = (BTreeMap::new(), Vec::new());
    let text = text("docker/Dockerfile").replace("\\\n", " ");
    let mut within = false;
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            ["FROM", base, "AS", stage] => {
                within = *stage == name;
                if within && !base.contains('$') {
                    (vars, ports) = self::stage(base);
                }
            }
            ["ENV", pairs @ ..] if within => {
                let pairs = pairs.iter().map(|pair| pair.split_once('=').unwrap());
                vars.extend(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())));
            }
            ["EXPOSE", numbers @ ..] if within => {
                ports.extend(numbers.iter().map(|number| number.parse::<u16>().unwrap()));
            }
            _ => {}
        }
    }
    (vars, ports)
}

fn image_vars(name: &str) -> BTreeMap<String, String> {
    stage(name).0
}

/// A value for each variable that Compose takes from the shell.
fn from_shell(key: &str) -> &'static str {
    match key {
        "HUB_TELEMETRY__LOG" => "debug",
        "OTEL_EXPORTER_OTLP_ENDPOINT" => "http://collector:4318",
        "OTEL_METRICS_EXPORTER" | "OTEL_LOGS_EXPORTER" => "none",
        "OTEL_TRACES_SAMPLER" => "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG" => "0.5",
        other => panic!("no value for {other}"),
    }
}

pub(crate) fn in_compose(name: &str) -> Container {
    let compose = compose();
    let service = &compose["services"][name];
    let mut container = Container::of(name);
    container.image = service["image"].as_str().unwrap().replace("${HUBSPOKE_VERSION:-", "").replace('}', "");
    for (key, value) in service["environment"].as_object().unwrap() {
        // A variable without a value is taken from the shell.
        let value = value.as_str().unwrap_or_else(|| from_shell(key));
        container.vars.insert(key.clone(), value.to_owned());
    }
    let texts = |key: &str| -> Vec<String> {
        let list = service[key].as_array().cloned().unwrap_or_default();
        list.iter().map(|item| item.as_str().unwrap().to_owned()).collect()
    };
    container.ports =
        texts("ports").iter().map(|port| port.rsplit(':').next().unwrap().parse().unwrap()).collect();
    let volumes = texts("volumes").into_iter().filter(|volume| !volume.ends_with(":ro"));
    container.volumes = volumes.map(|volume| volume.split(':').nth(1).unwrap().to_owned()).collect();
    let grace = service["stop_grace_period"].as_str().unwrap();
    container.grace = Duration::from_secs(grace.trim_end_matches('s').parse().unwrap());
    container
}

/// The object of this kind and name in `k8s/`.
fn object(kind: &str, name: &str) -> Value {
    let mut folder: Vec<_> =
        std::fs::read_dir(root().join("k8s")).unwrap().map(|file| file.unwrap().path()).collect();
    folder.sort();
    let yaml = folder.iter().filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    yaml.flat_map(|path| documents(&format!("k8s/{}", path.file_name().unwrap().to_string_lossy())))
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("no {kind} {name} in k8s/"))
}

fn workload(name: &str) -> Value {
    object(if name == "log" { "StatefulSet" } else { "Deployment" }, name)
}

pub(crate) fn in_kubernetes(name: &str) -> Container {
    in_kubernetes_at(name, "192.0.2.7")
}

/// The same in a cluster whose pods have such addresses.
fn in_kubernetes_at(name: &str, pod_ip: &str) -> Container {
    let pod = &workload(name)["spec"]["template"]["spec"];
    let spec = &pod["containers"][0];
    let mut container = Container::of(name);
    container.image = spec["image"].as_str().unwrap().to_owned();
    for variable in spec["env"].as_array().unwrap() {
        if let Some(secret) = variable["valueFrom"]["secretKeyRef"].as_object() {
            // Without the Secret, the variable is unset.
            assert_eq!(
                (&secret["name"], &secret["optional"]),
                (&"hubspoke-tokens".into(), &true.into()),
                "{name}"
            );
            continue;
        }
        let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some("status.podIP") => pod_ip.to_owned(),
            Some("metadata.name") => format!("{name}-0"),
            Some(other) => panic!("{name}: {other}"),
            None => expand(variable["value"].as_str().unwrap(), &container.vars),
        };
        container.vars.insert(variable["name"].as_str().unwrap().to_owned(), value);
    }
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    container.ports =
        list(&spec["ports"]).iter().map(|port| port["containerPort"].as_u64().unwrap() as u16).collect();
    container.volumes = list(&spec["volumeMounts"])
        .iter()
        .filter(|mount| mount["readOnly"] != true)
        .map(|mount| mount["mountPath"].as_str().unwrap().to_owned())
        .collect();
    container.grace = Duration::from_secs(pod["terminationGracePeriodSeconds"].as_u64().unwrap());
    container
}

/// Replaces `$(NAME)` as the kubelet does: only by variables defined before.
fn expand(value: &str, vars: &BTreeMap<String, String>) -> String {
    let filled =
        vars.iter().fold(value.to_owned(), |text, (name, value)| text.replace(&format!("$({name})"), value));
    assert!(!filled.contains("$("), "{value} uses a variable that is not defined before it");
    filled
}

/// The common keys of a process, and its own table as JSON.
pub(crate) type Loaded = (Common, Value);

pub(crate) fn load(name: &str, file: &Path, container: &Container) -> Result<Loaded, ConfigError> {
    fn read<T: Table>(process: &Process, source: &ConfigSource) -> Result<Loaded, ConfigError> {
        let (config, _) = Layers::config::<T>(process, source)?;
        telemetry::TelemetrySettings::read(process, &config.common.telemetry, &source.vars)?;
        Ok((config.common, serde_json::to_value(config.own).unwrap()))
    }
    let vars = container.vars.clone().into_iter().collect();
    let source = ConfigSource { file: Some(file.to_owned()), vars, ..ConfigSource::default() };
    match name {
        "registry" => read::<hubspoke_registry::Settings>(&hubspoke_registry::PROCESS, &source),
        "gateway" => read::<hubspoke_gateway::GatewayConfig>(&hubspoke_gateway::PROCESS, &source),
        "log" => read::<hubspoke_log::LogConfig>(&hubspoke_log::PROCESS, &source),
        "visit" => read::<hubspoke_visit::VisitConfig>(&hubspoke_visit::PROCESS, &source),
        other => panic!("{other} is not a service"),
    }
}

/// Checks what holds for a container wherever it runs.
fn check_container(name: &str, container: &Container, file: &Path, port: u16, control: u16) {
    let (common, own) = load(name, file, container).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(container.image, format!("hubspoke/{name}:{VERSION}"));
    assert_eq!(common.name, name);
    assert!(common.listen.ip().is_unspecified(), "{name} listens on {}", common.listen);
    assert_eq!(common.listen.port(), port, "{name}");
    assert_eq!(common.control_listen.unwrap_or(common.listen).port(), control, "{name}");
    assert_eq!(common.registry.url, "http://registry:20000", "{name}");
    assert!(common.listen.is_ipv6(), "{name} must listen on both families");
    assert_eq!(common.advertise, None, "{name}");
    if let Some(host) = &common.advertise_host {
        assert_eq!(Some(host), container.vars.get("POD_IP"), "{name}");
    }
    assert!(
        container.grace > common.shutdown_grace + Duration::from_secs(5),
        "{name}: {:?}",
        container.grace
    );
    let (_, exposed) = stage(name);
    for port in &container.ports {
        assert!(exposed.contains(port), "{name}: {port} is not exposed by the image");
    }
    for key in ["data_dir", "file"] {
        let Some(path) = own[key].as_str() else { continue };
        if name == "visit" && own["state"] == "memory" {
            continue;
        }
        let written =
            container.volumes.iter().any(|volume| path.starts_with(&format!("{volume}/")) || path == volume);
        assert!(written, "{name}: {key} = {path} is not on a volume: {:?}", container.volumes);
    }
}

#[test]
fn compose_sets_valid_settings() {
    for (name, port, control) in SERVICES {
        check_container(name, &in_compose(name), &root().join(format!("config/{name}.toml")), port, control);
    }
}

#[test]
fn compose_sets_valid_settings_for_hub() {
    let container = in_compose("hub");
    assert_eq!(container.image, format!("hubspoke/hub:{VERSION}"));
    let source = ConfigSource { vars: container.vars.into_iter().collect(), ..ConfigSource::default() };
    let (config, _) = hubspoke::config::HubConfig::load(&source).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.common.registry.url, "http://registry:20000");
}

#[test]
fn kubernetes_sets_valid_settings() {
    let map = object("ConfigMap", "hubspoke");
    let folder = tempfile::tempdir().unwrap();
    for (name, port, control) in SERVICES {
        let file = folder.path().join(format!("{name}.toml"));
        std::fs::write(&file, map["data"][format!("{name}.toml")].as_str().unwrap()).unwrap();
        check_container(name, &in_kubernetes_at(name, "fd00::7"), &file, port, control);
        let container = in_kubernetes(name);
        check_container(name, &container, &file, port, control);
        let (common, _) = load(name, &file, &container).unwrap();
        let metrics = common.metrics_listen.expect("metrics have a port of their own").port();
        assert!(
            ![port, control].contains(&metrics) && container.ports.contains(&metrics),
            "{name}: {metrics}"
        );
        assert!(
            container.ports.contains(&port) && container.ports.contains(&control),
            "{name}: {:?}",
            container.ports
        );
    }
}

#[test]
fn the_config_map_contains_the_files_of_config() {
    let map = object("ConfigMap", "hubspoke");
    for (name, ..) in SERVICES {
        let file = format!("{name}.toml");
        assert_eq!(
            map["data"][&file],
            text(&format!("config/{file}")),
            "{file} differs: run tests/deploy/config-map"
        );
    }
}

#[test]
fn a_misspelled_setting_is_refused() {
    for (name, ..) in SERVICES {
        let mut container = in_compose(name);
        container.vars.insert(format!("HUB_{}__FIEL", name.to_uppercase()), "x".to_owned());
        let error =
            load(name, &root().join(format!("config/{name}.toml")), &container).unwrap_err().to_string();
        assert!(error.contains(&format!("HUB_{}__FIEL", name.to_uppercase())), "{name}: {error}");
    }
}

#[test]
fn probes_use_the_control_port() {
    for (name, _, control) in SERVICES {
        let workload = workload(name);
        let spec = &workload["spec"]["template"]["spec"]["containers"][0];
        for (probe, path) in [
            ("startupProbe", "/livez"),
            ("livenessProbe", "/livez"),
            ("readinessProbe", hubspoke_chassis::health::READYZ_PATH),
        ] {
            let get = &spec[probe]["httpGet"];
            assert_eq!(get["path"], path, "{name}: {probe}");
            let ports = spec["ports"].as_array().unwrap();
            let named = ports.iter().find(|port| port["name"] == get["port"]).unwrap();
            assert_eq!(named["containerPort"], control, "{name}: {probe}");
        }
    }
}

#[test]
fn services_target_the_public_ports() {
    for (name, port, _) in SERVICES.into_iter().filter(|(name, ..)| *name != "visit") {
        let service = object("Service", name);
        let target = &service["spec"]["ports"][0]["targetPort"];
        let workload = workload(name);
        let ports =
            workload["spec"]["template"]["spec"]["containers"][0]["ports"].as_array().unwrap().clone();
        let named = ports.iter().find(|port| port["name"] == *target).unwrap();
        assert_eq!(named["containerPort"], port, "{name}");
        let labels = &workload["spec"]["template"]["metadata"]["labels"];
        for (key, value) in service["spec"]["selector"].as_object().unwrap() {
            assert_eq!(labels[key], *value, "{name}: the Service does not select its pods");
        }
    }
    assert_eq!(object("Service", "registry")["spec"]["ports"][0]["port"], 20000);
}

#[test]
fn published_ports_are_the_documented_ones() {
    let published = |name: &str| compose()["services"][name]["ports"].clone();
    assert_eq!(published("registry"), serde_json::json!(["127.0.0.1:20000:20000"]));
    assert_eq!(published("gateway"), serde_json::json!(["127.0.0.1:20001:20001"]));
    assert_eq!(published("visit"), serde_json::json!(["127.0.0.1:20003:20003"]));
    assert_eq!(published("log"), Value::Null, "replicas can't share a host port");
}

#[test]
fn every_compose_service_can_be_scaled_and_is_built_alike() {
    let mut built = 0;
    for (name, service) in compose()["services"].as_object().unwrap() {
        assert!(service.get("container_name").is_none(), "{name} can't be scaled");
        // Threads count too, and the gateway has two per core.
        let pids = service["pids_limit"].as_u64().unwrap();
        assert!(
            pids >= 512,
            "{name}: {pids} processes and threads are not enough on a machine with many cores"
        );
        if let Some(build) = service.get("build") {
            let image = if name == "tokens" { "hub" } else { name };
            assert_eq!(service["image"], format!("hubspoke/{image}:${{HUBSPOKE_VERSION:-{VERSION}}}"));
            assert_eq!(build["target"], *image);
            assert_eq!(build["args"]["VERSION"], format!("${{HUBSPOKE_VERSION:-{VERSION}}}"), "{name}");
            assert_eq!(build["args"]["REVISION"], "${HUBSPOKE_REVISION:-unknown}", "{name}");
            built += 1;
        }
    }
    assert_eq!(built, SERVICES.len() + 2, "all services and hub are built, hub for two services");
}

#[test]
fn nobody_can_log_in_to_grafana() {
    let environment = &compose()["services"]["grafana"]["environment"];
    for (key, value) in [
        ("GF_AUTH_ANONYMOUS_ORG_ROLE", "Viewer"),
        ("GF_AUTH_DISABLE_LOGIN_FORM", "true"),
        ("GF_AUTH_BASIC_ENABLED", "false"),
        ("GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION", "true"),
    ] {
        assert_eq!(environment[key], value, "{key}");
    }
}
