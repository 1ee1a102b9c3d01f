//! TLS in Compose and in Kubernetes: what the override and the overlay set is accepted by the gateway, and agrees with
//! itself.

use clap::Parser;
use hubspoke::cli::HubCli;
use serde_json::{Value, json};

use crate::manifests::{documents, in_compose, in_kubernetes, load, root, text};

#[test]
fn the_override_of_compose_puts_the_certificate_where_the_gateway_looks() {
    let compose: Value = serde_saphyr::from_str(&text("docker/compose.tls.yaml")).unwrap();
    let gateway = &compose["services"]["gateway"];
    let mut container = in_compose("gateway");
    for (key, value) in gateway["environment"].as_object().unwrap() {
        container.vars.insert(key.clone(), value.as_str().unwrap().to_owned());
    }
    let (_, own) = load("gateway", &root().join("config/gateway.toml"), &container).unwrap();
    assert_eq!(own["tls"]["listen"], "[::]:20443");
    assert_eq!(own["tls"]["certs"], json!(["/certs/gateway"]));
    assert_eq!(gateway["ports"], json!(["127.0.0.1:20443:20443"]));
    let makes = &compose["services"]["certificates"];
    assert_eq!(
        (&makes["volumes"][1], &gateway["volumes"][0]),
        (&json!("certs:/certs"), &json!("certs:/certs:ro"))
    );
    let args = makes["command"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap());
    // The default of the variable.
    let args: Vec<String> = args.map(|arg| arg.replace("${HUBSPOKE_HOSTS:-", "").replace('}', "")).collect();
    assert!(args.contains(&"gateway".to_owned()) && args.contains(&"--dir=/certs".to_owned()), "{args:?}");
    assert!(HubCli::try_parse_from(std::iter::once("hub".to_owned()).chain(args)).is_ok());
}

#[test]
fn the_overlay_mounts_the_secret_of_the_certificate_where_the_gateway_looks() {
    let file = |name: &str| documents(&format!("config/k8s/overlays/tls/{name}"));
    let pod = &file("gateway.yaml")[0]["spec"]["template"]["spec"];
    let spec = &pod["containers"][0];
    let mut container = in_kubernetes("gateway");
    for variable in spec["env"].as_array().unwrap() {
        let part = |key: &str| variable[key].as_str().unwrap().to_owned();
        container.vars.insert(part("name"), part("value"));
    }
    let (_, own) = load("gateway", &root().join("config/gateway.toml"), &container).unwrap();
    assert_eq!(own["tls"]["listen"], "[::]:20443");
    assert_eq!(own["tls"]["certs"], json!([spec["volumeMounts"][0]["mountPath"]]));
    assert_eq!(spec["ports"], json!([{"name": "https", "containerPort": 20443}]));
    assert_eq!(file("network-policy.yaml")[0]["spec"]["ingress"][0]["ports"], json!([{"port": 20443}]));
    let volume = &pod["volumes"][0];
    assert_eq!(volume["name"], spec["volumeMounts"][0]["name"]);
    let objects = file("certificates.yaml");
    let named = |kind: &str, name: &str| {
        let is = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
        &objects.iter().find(is).unwrap_or_else(|| panic!("no {kind} {name}"))["spec"]
    };
    let gateway = named("Certificate", "gateway");
    assert_eq!(gateway["secretName"], volume["secret"]["secretName"]);
    assert_eq!(gateway["uris"], json!(["spiffe://hubspoke/gateway"]));
    for certificate in [gateway, named("Certificate", "hubspoke-ca")] {
        let issuer = named("Issuer", certificate["issuerRef"]["name"].as_str().unwrap());
        assert!(
            issuer["ca"]["secretName"] == named("Certificate", "hubspoke-ca")["secretName"]
                || issuer["selfSigned"] == json!({})
        );
    }
}
