//! What others can make each service hold, with the default settings: the table on the security page, and the sums held
//! below the memory limits of the containers.

use std::fmt::Write;

use hubspoke_chassis::config::Common;
use hubspoke_chassis::memory::MemoryBound;
use hubspoke_chassis::server;
use hubspoke_gateway::GatewayConfig;
use hubspoke_log::LogConfig;
use hubspoke_registry::Settings;
use serde_json::Value;

use super::{check_generated, root};

/// A process that serves nobody, in bytes: code, threads, metrics.
const AT_REST: usize = 16 << 20;

/// Each service with its bounds.
fn services() -> [(&'static str, Vec<MemoryBound>); 4] {
    let connections = Common::of(&hubspoke_visit::PROCESS).unwrap().max_connections;
    let with_port = |own: Vec<MemoryBound>| {
        let rest = [MemoryBound::new("the process at rest", AT_REST, 1)];
        let port = server::memory_bounds(connections);
        rest.into_iter().chain(port).chain(metrics_port()).chain(own).collect()
    };
    // Those of its control port are among its own. With TLS on: the container has room for it.
    let mut with_tls = GatewayConfig::default();
    with_tls.tls.listen = Some(([127, 0, 0, 1], 20443).into());
    let gateway = hubspoke_gateway::memory_bounds(&with_tls);
    [
        ("registry", with_port(hubspoke_registry::memory_bounds(&Settings::default(), connections))),
        ("gateway", gateway.into_iter().chain(metrics_port()).collect()),
        ("log", with_port(hubspoke_log::memory_bounds(&LogConfig::default(), connections))),
        ("visit", with_port(Vec::new())),
    ]
}

/// The bounds of the port that has only metrics.
fn metrics_port() -> impl Iterator<Item = MemoryBound> {
    server::memory_bounds(server::CONTROL_CONNECTIONS).into_iter().map(|bound| {
        let is_connections = bound.what == "connections";
        let what = if is_connections {
            "connections to the metrics port"
        } else {
            "HTTP/2 requests on the metrics port"
        };
        MemoryBound { what, ..bound }
    })
}

fn total(bounds: &[MemoryBound]) -> usize {
    bounds.iter().map(MemoryBound::total).sum()
}

/// As people write sizes: in KiB below 1 MiB, rounded up.
fn size(bytes: usize) -> String {
    if bytes < 1 << 20 {
        format!("{} KiB", bytes.div_ceil(1 << 10))
    } else {
        format!("{} MiB", bytes.div_ceil(1 << 20))
    }
}

/// The limits of a service's container in Compose and in Kubernetes, in bytes.
fn container_limits(service: &str) -> [usize; 2] {
    let text = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let compose: Value = serde_saphyr::from_str(&text("docker-compose.yml")).unwrap();
    let limit = compose["services"][service]["mem_limit"].as_str().unwrap().strip_suffix('m').unwrap();
    let folder = std::fs::read_dir(root().join("k8s")).unwrap();
    let end = format!("-{service}.yaml");
    let file = folder.map(|entry| entry.unwrap().path()).find(|path| path.to_string_lossy().ends_with(&end));
    let manifests: Vec<Value> =
        serde_saphyr::from_multiple(&std::fs::read_to_string(file.unwrap()).unwrap()).unwrap();
    let pods = manifests.iter().filter_map(|manifest| manifest.pointer("/spec/template/spec/containers/0"));
    let in_pods: Vec<&Value> = pods.map(|container| &container["resources"]["limits"]["memory"]).collect();
    let [in_pod] = in_pods[..] else { panic!("{service}: {in_pods:?}") };
    let in_pod = in_pod.as_str().unwrap().strip_suffix("Mi").unwrap();
    [limit, in_pod].map(|limit| limit.parse::<usize>().unwrap() << 20)
}

#[test]
fn the_security_page_has_every_memory_bound() {
    let mut table = "| service | what | each | at most | together |\n|---|---|---|---|---|\n".to_owned();
    for (service, bounds) in services() {
        for bound in &bounds {
            let MemoryBound { what, count, .. } = bound;
            let (each, all) = (size(bound.size), size(bound.total()));
            writeln!(table, "| {service} | {what} | {each} | {count} | {all} |").unwrap();
        }
        let [limit, _] = container_limits(service);
        let sum = size(total(&bounds));
        writeln!(table, "| **{service}** | **of {} in its container** | | | **{sum}** |", size(limit))
            .unwrap();
    }
    check_generated("docs/security.md", "the services' memory_bounds", table.trim_end());
}

#[test]
fn what_others_can_make_a_service_hold_fits_its_container() {
    for (service, bounds) in services() {
        let sum = total(&bounds);
        for limit in container_limits(service) {
            assert!(sum <= limit, "{service}: {} of {}: {bounds:#?}", size(sum), size(limit));
        }
    }
}
