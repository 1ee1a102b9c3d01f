//! Who reaches whom in the cluster, worked out from the NetworkPolicies: a connection needs its caller's leave to go out
//! and its callee's to come in.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails should say where")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

/// Somebody at one end of a connection.
struct Peer {
    name: &'static str,
    /// In the platform's namespace, where the policies hold.
    ours: bool,
    labels: Value,
    namespace: Value,
    ip: &'static str,
}

fn ours(name: &'static str, labels: Value) -> Peer {
    Peer { name, ours: true, labels, namespace: json!({}), ip: "" }
}

fn service(name: &'static str) -> Peer {
    ours(name, json!({"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "hubspoke"}))
}

fn other(name: &'static str) -> Peer {
    Peer { name, ours: false, labels: json!({}), namespace: json!({}), ip: "" }
}

fn peers() -> Vec<Peer> {
    vec![
        service("registry"),
        service("gateway"),
        service("log"),
        service("visit"),
        ours("own", json!({"hub-member": "true"})),
        ours("stranger", json!({})),
        Peer { namespace: json!({"hub-observability": "true"}), ..other("observability") },
        Peer { labels: json!({"k8s-app": "kube-dns"}), ..other("dns") },
        Peer { ip: "169.254.20.10", ..other("node-dns") },
        other("outside"),
    ]
}

fn policies() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s/80-network-policies.yaml");
    serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Whether labels fit a selector; `{}` fits all.
fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object().unwrap();
    assert!(selector.keys().all(|key| key == "matchLabels"), "{selector:?}: not known here");
    selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten().all(|(k, v)| labels[k] == *v)
}

fn matches(from_or_to: &Value, peer: &Peer) -> bool {
    if let Some(cidr) = from_or_to["ipBlock"]["cidr"].as_str() {
        return cidr.strip_suffix("/32").unwrap() == peer.ip;
    }
    let (pods, namespaces) = (&from_or_to["podSelector"], &from_or_to["namespaceSelector"]);
    assert!(!pods.is_null() || !namespaces.is_null(), "{from_or_to}: not known here");
    let namespace = if namespaces.is_null() { peer.ours } else { selects(namespaces, &peer.namespace) };
    // An address of the node's is in no namespace.
    namespace && peer.ip.is_empty() && (pods.is_null() || selects(pods, &peer.labels))
}

/// Whether the policies of `at` let connections with `peer` through, in one direction.
fn allows(policies: &[Value], direction: &str, at: &Peer, peer: &Peer, port: &Value) -> bool {
    if !at.ours {
        return true;
    }
    let (kind, ends) = if direction == "ingress" { ("Ingress", "from") } else { ("Egress", "to") };
    let holds = |policy: &&Value| {
        selects(&policy["spec"]["podSelector"], &at.labels)
            && policy["spec"]["policyTypes"].as_array().unwrap().contains(&json!(kind))
    };
    let held: Vec<_> = policies.iter().filter(holds).collect();
    let any = |list: &Value, fits: &dyn Fn(&Value) -> bool| {
        list.as_array().is_none_or(|list| list.iter().any(fits))
    };
    held.is_empty()
        || held.iter().flat_map(|policy| policy["spec"][direction].as_array().into_iter().flatten()).any(
            |rule| {
                any(&rule[ends], &|end| matches(end, peer))
                    && any(&rule["ports"], &|allowed| numbered(allowed) == *port)
            },
        )
}

/// A port with its protocol, which is TCP where it is left out.
fn numbered(port: &Value) -> Value {
    json!([port["port"], port["protocol"].as_str().unwrap_or("TCP")])
}

#[test]
fn exactly_these_connections_are_let_through() {
    let (policies, peers) = (policies(), peers());
    // Each port that is named, and one that stands for all others.
    let mut ports = vec![numbered(&json!({"port": 8080}))];
    for rules in policies.iter().flat_map(|policy| [&policy["spec"]["ingress"], &policy["spec"]["egress"]]) {
        for rule in rules.as_array().into_iter().flatten() {
            ports.extend(rule["ports"].as_array().into_iter().flatten().map(numbered));
        }
    }
    let mut open: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (callee, port) in peers.iter().flat_map(|callee| ports.iter().map(move |port| (callee, port))) {
        for caller in peers.iter().filter(|caller| caller.ours || callee.ours) {
            let out = allows(&policies, "egress", caller, callee, port);
            if out && allows(&policies, "ingress", callee, caller, port) {
                let row = format!("{} {}/{}", callee.name, port[0], port[1].as_str().unwrap());
                open.entry(row).or_default().insert(caller.name);
            }
        }
    }
    // An own service listens where it likes: the same for every port.
    let own: Vec<_> = ports.iter().map(|p| format!("own {}/{}", p[0], p[1].as_str().unwrap())).collect();
    for row in &own {
        assert_eq!(open[row], open[&own[0]], "{row}");
    }
    open.retain(|row, _| !own[1..].contains(row));

    let everybody = ["gateway", "log", "own", "registry", "stranger", "visit"];
    let anywhere = ["dns", "node-dns", "observability", "outside"];
    let expected = [
        ("dns 53/TCP", &everybody[..]),
        ("dns 53/UDP", &everybody),
        ("gateway 20001/TCP", &anywhere),
        ("gateway 20011/TCP", &["observability", "registry"]),
        ("log 20002/TCP", &["gateway", "log", "observability", "own", "registry", "visit"]),
        ("node-dns 53/TCP", &everybody),
        ("node-dns 53/UDP", &everybody),
        ("observability 4318/TCP", &everybody),
        ("own 8080/TCP", &["gateway", "observability", "own", "registry"]),
        ("registry 20000/TCP", &["gateway", "log", "observability", "own", "visit"]),
        ("visit 20003/TCP", &["gateway", "observability", "own", "registry"]),
    ];
    let expected = expected.map(|(row, callers)| (row.to_owned(), callers.iter().copied().collect()));
    assert_eq!(open, BTreeMap::from(expected));
}
