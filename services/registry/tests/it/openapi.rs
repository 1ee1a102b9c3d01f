//! `/openapi.json` describes what is served: it has every operation, and real documents have all required keys of
//! their schemas and no unknown ones.

use std::collections::BTreeMap;

use hubspoke_protocol::{
    CatalogView, ChangeView, HeardView, InstanceState, InstanceView, Load, LoadView, MetricsTargets,
    ProtectionSwitch, ProtectionView, PushMode, Reason, ReasonKind, RegistriesView, RegistryView, Revision,
    ServiceInfo, Snapshot,
};
use hubspoke_testkit::FakeMember;
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};

use super::fixture::TestRegistry;

/// The differences between a document and its schema.
fn differences(schemas: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit_once('/').unwrap().1;
        return differences(schemas, &schemas[name], value, &format!("{at}<{name}>"));
    }
    if schema["type"].is_null() {
        return Vec::new(); // anything is taken, and ignored
    }
    let mut wrong = Vec::new();
    let kinds: Vec<_> = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        kind => kind.as_str().into_iter().collect(),
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !kinds.contains(&kind) {
        wrong.push(format!("{at}: {kind} is not one of {kinds:?}"));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        wrong.push(format!("{at}: {value} is not one of {allowed:?}"));
    }
    for (i, item) in value.as_array().into_iter().flatten().enumerate() {
        wrong.extend(differences(schemas, &schema["items"], item, &format!("{at}[{i}]")));
    }
    if let Some(object) = value.as_object() {
        for required in schema["required"].as_array().into_iter().flatten() {
            if !object.contains_key(required.as_str().unwrap()) {
                wrong.push(format!("{at}: {required} is missing"));
            }
        }
        for (key, value) in object {
            let known = &schema["properties"][key];
            let schema = if known.is_null() { &schema["additionalProperties"] } else { known };
            if schema.is_null() {
                wrong.push(format!("{at}: {key} is not described"));
            } else {
                wrong.extend(differences(schemas, schema, value, &format!("{at}.{key}")));
            }
        }
    }
    wrong
}

/// Every field is set.
fn full_info(state: Option<InstanceState>, push_key: bool) -> ServiceInfo {
    ServiceInfo {
        required_services: vec!["log".into()],
        id: Some("id".into()),
        control_addr: Some("127.0.0.1:2".into()),
        push: Some(PushMode::Snapshot),
        push_key: push_key.then(|| "key".into()),
        hosts_since: [("shop.example".to_owned(), 1)].into(),
        meta: [("zone".to_owned(), "a".to_owned())].into(),
        state,
        ..ServiceInfo::new("visit", "127.0.0.1:1")
    }
}

fn full_view(state: InstanceState, kind: ReasonKind) -> InstanceView {
    let now = || "2026-01-01T00:00:00.000Z".to_owned();
    InstanceView {
        info: full_info(None, false),
        state,
        registered: now(),
        last_heartbeat: Some(now()),
        load: Some(Load { requests: 1, in_flight: Some(2) }),
        warnings: vec!["unknown key X".into()],
        reasons: vec![Reason { at: now(), kind, detail: "why".into() }],
    }
}

#[tokio::test]
async fn documents_match_their_schemas() {
    let registry = TestRegistry::start().await;
    let described = registry.call(Method::GET, "/openapi.json", "").await.body;
    assert_eq!(described["openapi"], "3.1.0");
    let schemas = &described["components"]["schemas"];
    let check = |name: &str, value: Value| {
        let wrong = differences(schemas, &json!({ "$ref": format!("#/{name}") }), &value, "");
        assert_eq!(wrong, [""; 0], "{value}");
    };
    fn document(value: &impl Serialize) -> Value {
        serde_json::to_value(value).unwrap()
    }
    let revision = Revision { epoch: 0xab, n: 1 };
    let protection = ProtectionView { enabled: true, until: Some("x".into()), held_back: 1 };
    let one = RegistryView { addr: "127.0.0.1:1".into(), ..RegistryView::default() };
    let registries =
        RegistriesView { etcd_error: Some("x".into()), registries: vec![one], ..RegistriesView::default() };
    check("ServiceInfo", document(&full_info(None, true)));
    for state in [None, Some(InstanceState::Suspect), Some(InstanceState::Draining)] {
        check("ListedInstance", document(&full_info(state, false)));
    }
    use ReasonKind::{Deregistered, Draining, HeldBack, MissedHeartbeat, Recovered, Registered};
    use ReasonKind::{Removed, Replaced, Restored, Undrained};
    for kind in [
        Registered,
        Replaced,
        MissedHeartbeat,
        Recovered,
        Removed,
        Deregistered,
        HeldBack,
        Restored,
        Draining,
        Undrained,
    ] {
        let instance = full_view(InstanceState::Removed, kind);
        check("ChangeView", document(&ChangeView { revision, kind, instance }));
    }
    for state in
        [InstanceState::Passing, InstanceState::Suspect, InstanceState::Draining, InstanceState::Removed]
    {
        let services = [("visit".to_owned(), vec![full_view(state, Registered)])].into();
        let protection = Some(protection.clone());
        let registries = Some(registries.clone());
        check("CatalogView", document(&CatalogView { revision, services, protection, registries }));
    }
    for load in [None, Some(Load { requests: 1, in_flight: Some(2) })] {
        let heard = HeardView { last_heartbeat: "x".into(), load };
        let addrs = BTreeMap::from([("127.0.0.1:1".to_owned(), heard)]);
        check("LoadView", document(&LoadView { services: [("visit".to_owned(), addrs)].into() }));
    }
    check("ProtectionSwitch", document(&ProtectionSwitch { enabled: true }));
    let lists = Snapshot { revision, services: Default::default() }.services;
    check("ServiceLists", document(&lists));

    // Documents of a running registry.
    let visit = FakeMember::start().await;
    check("ServiceLists", registry.register(&visit.snapshot_info("visit", &["log", "visit"])).await.body);
    check("ServiceLists", registry.register(&visit.snapshot_info("visit", &["log", "visit"])).await.body);
    check("CatalogView", registry.call(Method::GET, "/services", "").await.body);
    check("ProtectionView", registry.call(Method::GET, "/protection", "").await.body);
    let labels = [("job".to_owned(), "log".to_owned())].into();
    check("MetricsTargets", document(&MetricsTargets { targets: vec!["127.0.0.1:1".into()], labels }));
    check("Problem", registry.call(Method::POST, "/services", "{").await.body);
}

#[tokio::test]
async fn every_operation_is_served_and_described() {
    let registry = TestRegistry::start().await;
    let described = registry.call(Method::GET, "/openapi.json", "").await.body;
    let mut operations = 0;
    for (path, methods) in described["paths"].as_object().unwrap() {
        let real = path.replace("{name}", "a").replace("{instance}", "x");
        let mut allowed: Vec<String> = Vec::new();
        for (method, operation) in methods.as_object().unwrap() {
            allowed.push(method.to_uppercase());
            let method: Method = method.to_uppercase().parse().unwrap();
            let reply =
                registry.http.request(method.clone(), registry.url(&real)).body("{").send().await.unwrap();
            let status = reply.status().as_u16().to_string();
            let described = &operation["responses"][&status];
            assert!(!described.is_null(), "{method} {path}: {status}");
            let stamped = described["headers"].get("Hub-Revision").is_some();
            assert_eq!(reply.headers().contains_key("hub-revision"), stamped, "{method} {path}");
            operations += 1;
        }
        let reply = registry.call(Method::TRACE, &real, "").await;
        assert_eq!(reply.problem(), 405, "{path}");
        let mut served: Vec<_> = reply.headers["allow"].to_str().unwrap().split(',').collect();
        served.retain(|method| *method != "HEAD");
        served.sort_unstable();
        allowed.sort_unstable();
        assert_eq!(served, allowed, "{path}");
    }
    assert!(operations >= 15);
}
