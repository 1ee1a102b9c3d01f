//! What overlays add to the manifests, and tokens.

use serde_json::Value;

use super::{SERVICES, VERSION, compose, documents, in_compose, in_kubernetes, load, root, workload};

#[test]
fn overlays_set_valid_settings() {
    let folder = root().join("config/k8s/overlays");
    let mut seen = 0;
    for file in std::fs::read_dir(folder.join("production"))
        .unwrap()
        .chain(std::fs::read_dir(folder.join("dev")).unwrap())
    {
        let path = file.unwrap().path();
        let path = path.strip_prefix(root()).unwrap().to_str().unwrap();
        // A file of JSON patches is a list, which has no kind.
        for object in documents(path)
            .iter()
            .filter(|object| object["kind"] == "Deployment" || object["kind"] == "StatefulSet")
        {
            let name = object["metadata"]["name"].as_str().unwrap();
            let mut container = in_kubernetes(name);
            for own in object["spec"]["template"]["spec"]["containers"].as_array().into_iter().flatten() {
                assert_eq!(own["name"], name, "{path}");
                for variable in own["env"].as_array().into_iter().flatten() {
                    let key = variable["name"].as_str().unwrap();
                    let Some(value) = variable["value"].as_str() else {
                        assert_eq!(variable["valueFrom"]["secretKeyRef"]["optional"], false, "{path}: {key}");
                        continue;
                    };
                    container.vars.insert(key.to_owned(), value.to_owned());
                    seen += 1;
                }
            }
            let file = root().join(format!("config/{name}.toml"));
            let (_, own) = load(name, &file, &container).unwrap_or_else(|error| panic!("{path}: {error}"));
            if path.ends_with("expose.yaml") {
                assert_eq!(
                    own["expose"],
                    serde_json::json!(["visit"]),
                    "services behind an Ingress are public"
                );
            }
        }
    }
    assert!(seen >= 3, "only {seen} variables were found");
}

/// In Compose each service has the token that `tokens` makes for it; in Kubernetes those of an optional Secret, which the
/// production overlay requires.
#[test]
fn every_service_finds_its_token() {
    let compose = compose();
    let made: Vec<_> = compose["services"]["tokens"]["command"].as_array().unwrap().clone();
    let production = documents("config/k8s/overlays/production/tokens.yaml");
    for (name, ..) in SERVICES {
        let container = in_compose(name);
        let (common, _) = load(name, &root().join(format!("config/{name}.toml")), &container).unwrap();
        assert!(compose["services"][name]["depends_on"].get("tokens").is_some(), "{name}");
        let asks = ["registry", "log"].contains(&name);
        assert_eq!(common.access.tokens_file, asks.then(|| "/tokens/tokens".into()), "{name}");
        if name != "registry" {
            assert!(made.contains(&name.into()), "{name}: {made:?}");
            assert_eq!(common.registry.token_file, Some(format!("/tokens/{name}.token").into()));
        }
        let required = production.iter().find(|object| object["metadata"]["name"] == name).unwrap();
        let key = |object: &Value, variable: &str| {
            let env = &object["spec"]["template"]["spec"]["containers"][0]["env"];
            let found = env.as_array().unwrap().iter().find(|own| own["name"] == variable);
            found.map(|own| own["valueFrom"]["secretKeyRef"]["key"].clone())
        };
        for object in [required, &workload(name)] {
            let (file, token) = (key(object, "HUB_ACCESS__TOKENS_FILE"), key(object, "HUB_REGISTRY__TOKEN"));
            assert_eq!(file, asks.then(|| "tokens-file".into()), "{name}");
            assert_eq!(token, (name != "registry").then(|| format!("{name}.token").into()), "{name}");
        }
    }
}

#[test]
fn production_pins_the_images_of_the_base() {
    let overlay = &documents("config/k8s/overlays/production/kustomization.yaml")[0];
    let images = overlay["images"].as_array().unwrap();
    for (name, ..) in SERVICES {
        let image = serde_json::json!({"name": format!("hubspoke/{name}"), "newTag": VERSION});
        assert!(images.contains(&image), "{images:?} lacks {image}");
    }
    assert_eq!(images.len(), SERVICES.len());
}
