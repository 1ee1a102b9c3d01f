//! Several registries and a shared count: what the overlay, the etcd beside it and the Compose file say about etcd is
//! accepted by the services, and agrees.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::manifests::{documents, in_kubernetes, load, root, text};

/// What the Secret says of an etcd with passwords and TLS.
const SECRET: [(&str, &str); 6] = [
    ("endpoints", "https://etcd-0.etcd:2379,https://etcd-1.etcd:2379"),
    ("user", "hubspoke"),
    ("password-file", "/etcd/password"),
    ("ca-file", "/etcd/ca"),
    ("cert-file", "/etcd/cert"),
    ("key-file", "/etcd/key"),
];

/// The only container of a workload in a file of the overlay.
fn container(file: &str) -> Value {
    let workload = &documents(&format!("config/k8s/overlays/ha/{file}"))[0];
    let pod = &workload["spec"]["template"]["spec"];
    let volume = json!({"name": "etcd", "secret": {"secretName": "hubspoke-etcd"}});
    assert_eq!(pod["volumes"][0], volume, "{file}");
    let mount = json!({"name": "etcd", "mountPath": "/etcd", "readOnly": true});
    assert_eq!(pod["containers"][0]["volumeMounts"][0], mount, "{file}");
    pod["containers"][0].clone()
}

/// The variables that the overlay adds, with a Secret of these keys.
fn vars(container: &Value, secret: &BTreeMap<&str, &str>) -> BTreeMap<String, String> {
    let mut vars = BTreeMap::new();
    for variable in container["env"].as_array().unwrap() {
        let reference = &variable["valueFrom"]["secretKeyRef"];
        let value = match reference["name"].as_str() {
            Some("hubspoke-etcd") => {
                let value = secret.get(reference["key"].as_str().unwrap());
                let optional = reference["optional"] == true;
                assert!(value.is_some() || optional, "the pod would not start: {variable}");
                value.map(|value| (*value).to_owned())
            }
            Some(_) => None, // tokens
            None => variable["value"].as_str().map(|value| value.replace("$(POD_IP)", "192.0.2.7")),
        };
        vars.extend(value.map(|value| (variable["name"].as_str().unwrap().to_owned(), value)));
    }
    vars
}

#[test]
fn the_overlay_sets_valid_settings_with_and_without_credentials() {
    for (name, key) in [("registry", "store"), ("visit", "state")] {
        let added = container(&format!("{name}.yaml"));
        let file = root().join(format!("config/{name}.toml"));
        let load_with = |secret: BTreeMap<&str, &str>| {
            let mut container = in_kubernetes(name);
            container.vars.extend(vars(&added, &secret));
            load(name, &file, &container).unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        let (common, own) = load_with(SECRET.into());
        assert_eq!(own[key], "etcd", "{name}");
        assert_eq!(own["etcd"]["endpoints"].as_array().unwrap().len(), 2, "{name}");
        for key in ["user", "password_file", "ca", "cert", "key"] {
            assert!(own["etcd"][key].is_string(), "{name}: {key}");
        }
        assert!(common.advertise_host.is_some(), "{name} must be reached by others");
        let (_, own) = load_with([("endpoints", "http://etcd-0.etcd:2379")].into());
        assert_eq!(own["etcd"]["user"], Value::Null, "{name}");
    }
}

/// Each member is listed under its name and the address at which its peers find it.
#[test]
fn the_members_of_etcd_know_each_other() {
    let etcd = documents("config/k8s/etcd/etcd.yaml");
    let set = etcd.iter().find(|object| object["kind"] == "StatefulSet").unwrap();
    let args = set["spec"]["template"]["spec"]["containers"][0]["command"].as_array().unwrap();
    let arg = |name: &str| {
        let args = args.iter().map(|arg| arg.as_str().unwrap());
        args.filter_map(|arg| arg.split_once('=')).find(|(key, _)| *key == name).unwrap().1
    };
    let replicas = set["spec"]["replicas"].as_u64().unwrap();
    let peers: Vec<String> = (0..replicas)
        .map(|n| {
            format!(
                "etcd-{n}={}",
                arg("--initial-advertise-peer-urls").replace("$(POD_NAME)", &format!("etcd-{n}"))
            )
        })
        .collect();
    assert_eq!(arg("--initial-cluster"), peers.join(","));
    assert_eq!(set["spec"]["serviceName"], "etcd");

    let compose: Value = serde_saphyr::from_str(&text("docker/compose.ha.yaml")).unwrap();
    let services = compose["services"].as_object().unwrap();
    let members: Vec<&String> = services.keys().filter(|name| name.starts_with("etcd-")).collect();
    assert_eq!(members.len(), 3);
    let shared = &compose["x-members"];
    let listed: Vec<String> = members.iter().map(|name| format!("{name}=http://{name}:2380")).collect();
    assert_eq!(shared["ETCD_INITIAL_CLUSTER"], listed.join(","));
    let endpoints: Vec<String> = members.iter().map(|name| format!("http://{name}:2379")).collect();
    assert_eq!(compose["x-engine"]["HUB_ETCD__ENDPOINTS"], endpoints.join(","));
    for name in members {
        let environment = &services[name]["environment"];
        assert_eq!(environment["ETCD_NAME"], **name);
        assert_eq!(environment["ETCD_ADVERTISE_CLIENT_URLS"], format!("http://{name}:2379"));
        assert_eq!(environment["ETCD_INITIAL_ADVERTISE_PEER_URLS"], format!("http://{name}:2380"));
        assert_eq!(services[name]["volumes"], json!([format!("{name}:/data")]));
    }
    let image = |value: &Value| value["image"].as_str().unwrap().to_owned();
    assert_eq!(image(&set["spec"]["template"]["spec"]["containers"][0]), image(&compose["x-etcd"]));
}

#[test]
fn compose_publishes_each_registry_on_a_loopback_port_of_its_own() {
    let compose: Value = serde_saphyr::from_str(&text("docker/compose.ha.yaml")).unwrap();
    let mut published = Vec::new();
    for service in compose["services"].as_object().unwrap().values() {
        for port in service["ports"].as_array().into_iter().flatten() {
            published.push(port.as_str().unwrap().to_owned());
        }
    }
    published.sort();
    let expected =
        ["127.0.0.1:21000:20000", "127.0.0.1:21001:20001", "127.0.0.1:21100:20000", "127.0.0.1:21200:20000"];
    assert_eq!(published, expected);
}
