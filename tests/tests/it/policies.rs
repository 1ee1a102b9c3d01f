//! Which pods can connect to which in the cluster, computed from the NetworkPolicies: the caller's policies must allow
//! the connection out, and the callee's must allow it in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

/// One end of a connection.
struct Endpoint {
    name: &'static str,
    /// Whether it is in the platform's namespace, where the policies apply.
    ours: bool,
    labels: Value,
    namespace: Value,
    ip: &'static str,
}

fn ours(name: &'static str, labels: Value) -> Endpoint {
    Endpoint { name, ours: true, labels, namespace: json!({}), ip: "" }
}

fn service(name: &'static str) -> Endpoint {
    ours(name, json!({"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "hubspoke"}))
}

fn other(name: &'static str) -> Endpoint {
    Endpoint { name, ours: false, labels: json!({}), namespace: json!({}), ip: "" }
}

fn endpoints() -> Vec<Endpoint> {
    vec![
        service("registry"),
        service("gateway"),
        service("log"),
        service("visit"),
        ours("own", json!({"hub-member": "true"})),
        ours("stranger", json!({})),
        Endpoint { namespace: json!({"hub-observability": "true"}), ..other("observability") },
        Endpoint { labels: json!({"k8s-app": "kube-dns"}), ..other("dns") },
        Endpoint {
            labels: json!({"dns.operator.openshift.io/daemonset-dns": "default"}),
            ..other("openshift-dns")
        },
        Endpoint { ip: "169.254.20.10", ..other("node-dns") },
        Endpoint { ip: "169.254.169.254", ..other("cloud-dns") },
        other("outside"),
    ]
}

fn policies(files: &[&str]) -> Vec<Value> {
    let read = |file: &&str| -> Vec<Value> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    files.iter().flat_map(read).collect()
}

const BASE: &str = "k8s/80-network-policies.yaml";
const HA: &str = "config/k8s/overlays/ha/network-policies.yaml";
const ETCD: &str = "config/k8s/etcd/network-policy.yaml";

/// Whether a selector matches labels; `{}` matches all.
fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object().unwrap();
    assert!(selector.keys().all(|key| key == "matchLabels"), "{selector:?} is not supported here");
    selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten().all(|(k, v)| labels[k] == *v)
}

fn matches(from_or_to: &Value, peer: &Endpoint) -> bool {
    if let Some(cidr) = from_or_to["ipBlock"]["cidr"].as_str() {
        return cidr.strip_suffix("/32").unwrap() == peer.ip;
    }
    let (pods, namespaces) = (&from_or_to["podSelector"], &from_or_to["namespaceSelector"]);
    assert!(!pods.is_null() || !namespaces.is_null(), "{from_or_to} is not supported here");
    let namespace = if namespaces.is_null() { peer.ours } else { selects(namespaces, &peer.namespace) };
    // An address of a node is in no namespace.
    namespace && peer.ip.is_empty() && (pods.is_null() || selects(pods, &peer.labels))
}

/// Whether the policies that apply to `at` allow connections with `peer` in one direction.
fn allows(policies: &[Value], direction: &str, at: &Endpoint, peer: &Endpoint, port: &Value) -> bool {
    if !at.ours {
        return true;
    }
    let (kind, ends) = if direction == "ingress" { ("Ingress", "from") } else { ("Egress", "to") };
    let applies = |policy: &&Value| {
        selects(&policy["spec"]["podSelector"], &at.labels)
            && policy["spec"]["policyTypes"].as_array().unwrap().contains(&json!(kind))
    };
    let applying: Vec<_> = policies.iter().filter(applies).collect();
    let any = |list: &Value, fits: &dyn Fn(&Value) -> bool| {
        list.as_array().is_none_or(|list| list.iter().any(fits))
    };
    applying.is_empty()
        || applying.iter().flat_map(|policy| policy["spec"][direction].as_array().into_iter().flatten()).any(
            |rule| {
                any(&rule[ends], &|end| matches(end, peer))
                    && any(&rule["ports"], &|allowed| numbered(allowed) == *port)
            },
        )
}

/// The port that the user's own service names `metrics`.
const OWN_METRICS: u16 = 20024;

/// A port with its protocol: TCP by default.
fn numbered(port: &Value) -> Value {
    let number = if port["port"] == "metrics" { &json!(OWN_METRICS) } else { &port["port"] };
    json!([number, port["protocol"].as_str().unwrap_or("TCP")])
}

/// Which callers reach which port of whom.
type Connections = BTreeMap<String, BTreeSet<&'static str>>;

fn connections(policies: &[Value], endpoints: &[Endpoint]) -> Connections {
    // Every port in the policies, and one that stands for all others.
    let mut ports = vec![numbered(&json!({"port": 8080}))];
    for rules in policies.iter().flat_map(|policy| [&policy["spec"]["ingress"], &policy["spec"]["egress"]]) {
        for rule in rules.as_array().into_iter().flatten() {
            ports.extend(rule["ports"].as_array().into_iter().flatten().map(numbered));
        }
    }
    let mut open = Connections::new();
    for (callee, port) in endpoints.iter().flat_map(|callee| ports.iter().map(move |port| (callee, port))) {
        for caller in endpoints.iter().filter(|caller| caller.ours || callee.ours) {
            let out = allows(policies, "egress", caller, callee, port);
            if out && allows(policies, "ingress", callee, caller, port) {
                let row = format!("{} {}/{}", callee.name, port[0], port[1].as_str().unwrap());
                open.entry(row).or_default().insert(caller.name);
            }
        }
    }
    // A user's own service may listen on any port: the same callers reach all of them but that for metrics.
    let own = ports.iter().filter(|port| port[0] != OWN_METRICS);
    let own: Vec<_> = own.map(|p| format!("own {}/{}", p[0], p[1].as_str().unwrap())).collect();
    for row in &own {
        assert_eq!(open[row], open[&own[0]], "{row}");
    }
    open.retain(|row, _| !own[1..].contains(row));
    open
}

#[test]
fn exactly_these_connections_are_allowed() {
    let open = connections(&policies(&[BASE]), &endpoints());
    let everybody = ["gateway", "log", "own", "registry", "stranger", "visit"];
    let anywhere = ["cloud-dns", "dns", "node-dns", "observability", "openshift-dns", "outside"];
    let expected = [
        ("cloud-dns 53/TCP", &everybody[..]),
        ("cloud-dns 53/UDP", &everybody),
        ("dns 53/TCP", &everybody),
        ("dns 53/UDP", &everybody),
        ("gateway 20001/TCP", &anywhere),
        ("gateway 20011/TCP", &["registry"]),
        ("gateway 20021/TCP", &["observability"]),
        ("log 20002/TCP", &["gateway", "log", "own", "registry", "visit"]),
        ("log 20022/TCP", &["observability"]),
        ("node-dns 53/TCP", &everybody),
        ("node-dns 53/UDP", &everybody),
        ("observability 4318/TCP", &everybody),
        ("openshift-dns 5353/TCP", &everybody),
        ("openshift-dns 5353/UDP", &everybody),
        ("own 20024/TCP", &["gateway", "observability", "own", "registry"]),
        ("own 8080/TCP", &["gateway", "own", "registry"]),
        ("registry 20000/TCP", &["gateway", "log", "own", "visit"]),
        ("registry 20020/TCP", &["observability"]),
        ("visit 20003/TCP", &["gateway", "own", "registry"]),
        ("visit 20023/TCP", &["observability"]),
    ];
    let expected = expected.map(|(row, callers)| (row.to_owned(), callers.iter().copied().collect()));
    assert_eq!(open, BTreeMap::from(expected));
}

#[test]
fn several_registries_reach_one_another_and_etcd_and_nobody_else_does() {
    let mut endpoints = endpoints();
    endpoints.push(service("etcd"));
    endpoints.push(Endpoint { namespace: json!({"hub-etcd": "true"}), ..other("etcd-elsewhere") });
    let base = connections(&policies(&[BASE, ETCD]), &endpoints);
    let mut open = connections(&policies(&[BASE, ETCD, HA]), &endpoints);
    assert_eq!(open["registry 20000/TCP"], ["gateway", "log", "own", "registry", "visit"].into());
    open.retain(|row, callers| base.get(row) != Some(callers));
    let expected = [
        ("etcd 2379/TCP", &["etcd", "registry", "visit"][..]),
        ("etcd-elsewhere 2379/TCP", &["registry", "visit"]),
        ("registry 20000/TCP", &["gateway", "log", "own", "registry", "visit"]),
    ];
    let expected = expected.map(|(row, callers)| (row.to_owned(), callers.iter().copied().collect()));
    assert_eq!(open, BTreeMap::from(expected), "beyond the base");
    assert_eq!(base["etcd 2380/TCP"], ["etcd"].into());
    assert_eq!(base["etcd 2379/TCP"], ["etcd"].into(), "without the overlay nobody else needs it");
}
