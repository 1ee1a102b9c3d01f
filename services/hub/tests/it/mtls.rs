//! `hub up` with `[tls]`, and the other commands as operators, readers and strangers use them.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use hubspoke_testkit::pki::{IdentityPaths, TestCa};

use super::up::{HubUp, hub};

const SERVICES: [&str; 4] = ["registry", "gateway", "log", "visit"];

fn vars(IdentityPaths { cert, key, ca }: &IdentityPaths) -> Vec<(&'static str, String)> {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    vec![("HUB_TLS__CERT", text(cert)), ("HUB_TLS__KEY", text(key)), ("HUB_TLS__CA", text(ca))]
}

/// Runs a command with a certificate, or with none.
fn run(args: &[&str], registry: &str, identity: Option<&IdentityPaths>) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let mut command = hub(&dir, args);
    command.env("HUB_REGISTRY__URL", registry);
    command.envs(identity.map(vars).unwrap_or_default());
    command.output().unwrap()
}

#[test]
fn commands_speak_mutual_tls_with_the_rights_of_their_certificate() {
    let (ca, dir) = (TestCa::new(), Arc::new(tempfile::tempdir().unwrap()));
    let identity = |name: &str, names: &[&str]| ca.identity(&dir.path().join(name), names);
    let all = identity("all", &SERVICES);
    let vars = vars(&all);
    let vars: Vec<_> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let up = HubUp::start_with(dir.clone(), &["up", "--log", "2"], &vars);
    let registry = up.url("registry");
    assert!(registry.starts_with("https://") && up.url("log").starts_with("https://"), "{}", up.banner);
    assert!(up.url("gateway").starts_with("http://"), "{}", up.banner);

    let operator = identity("operator", &["role/operator"]);
    let text = |output: &Output| {
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let status = run(&["status"], &registry, Some(&operator));
    assert!(status.status.success() && text(&status).contains("passing"), "{}", text(&status));
    let demo = run(&["demo", "--rate", "50", "--duration", "1s"], &registry, Some(&operator));
    assert!(demo.status.success() && text(&demo).contains("0 failed"), "{}", text(&demo));
    let logs = run(&["logs"], &registry, Some(&operator));
    assert!(logs.status.success() && text(&logs).contains("visit"), "{}", text(&logs));
    let protect = |identity| run(&["registry", "protect", "off"], &registry, Some(identity));
    assert!(protect(&operator).status.success());
    let refused = protect(&identity("reader", &["role/reader"]));
    assert!(text(&refused).contains("the certificate of role/reader may not"), "{}", text(&refused));
    // Of another authority, in clear text, and without a certificate.
    let foreign = TestCa::new().identity(&dir.path().join("foreign"), &["role/operator"]);
    assert!(!run(&["status"], &registry, Some(&foreign)).status.success());
    let plain = registry.replace("https://", "http://");
    let clear = run(&["status"], &plain, None);
    assert!(text(&clear).contains("perhaps that is a TLS port"), "{}", text(&clear));
    let none = run(&["status"], &registry, None);
    assert_eq!(none.status.code(), Some(78), "{}", text(&none));
    assert!(text(&none).contains("https:// needs a certificate of this process"), "{}", text(&none));
    let mixed = run(&["status"], &plain, Some(&operator));
    assert!(text(&mixed).contains("[tls] is set, so it must begin with https://"), "{}", text(&mixed));
}
