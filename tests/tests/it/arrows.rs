//! The dependency map of ARCHITECTURE.md: which package of the workspace may depend on which.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

const TESTKIT: &str = "hubspoke-testkit";

/// Each package with the packages of the workspace that it may depend on. Every package may also use
/// [`TESTKIT`] as a dev-dependency.
const ALLOWED: [(&str, &[&str]); 16] = [
    ("hubspoke-protocol", &[]),
    ("hubspoke-http1", &[]),
    ("hubspoke-etcd", &[]),
    ("hubspoke-sockets", &[]),
    ("hubspoke-tls", &[]),
    ("hubspoke-acme", &["hubspoke-tls"]),
    (TESTKIT, &["hubspoke-protocol"]),
    ("hubspoke-client", &["hubspoke-protocol", "hubspoke-tls"]),
    ("hubspoke-chassis", &["hubspoke-protocol", "hubspoke-tls", "hubspoke-client", "hubspoke-sockets"]),
    (
        "hubspoke-registry",
        &["hubspoke-protocol", "hubspoke-tls", "hubspoke-etcd", "hubspoke-client", "hubspoke-chassis"],
    ),
    (
        "hubspoke-gateway",
        &[
            "hubspoke-protocol",
            "hubspoke-http1",
            "hubspoke-tls",
            "hubspoke-acme",
            "hubspoke-client",
            "hubspoke-chassis",
        ],
    ),
    ("hubspoke-log", &["hubspoke-protocol", "hubspoke-client", "hubspoke-chassis"]),
    ("hubspoke-visit", &["hubspoke-protocol", "hubspoke-etcd", "hubspoke-client", "hubspoke-chassis"]),
    ("hubspoke-run", &["hubspoke-protocol", "hubspoke-client", "hubspoke-sockets"]),
    (
        "hubspoke",
        &[
            "hubspoke-protocol",
            "hubspoke-client",
            "hubspoke-chassis",
            "hubspoke-registry",
            "hubspoke-gateway",
            "hubspoke-log",
            "hubspoke-visit",
            "hubspoke-run",
            "hubspoke-tls",
        ],
    ),
    (
        "hubspoke-tests",
        &[
            "hubspoke-protocol",
            "hubspoke-client",
            "hubspoke-chassis",
            "hubspoke-registry",
            "hubspoke-gateway",
            "hubspoke-log",
            "hubspoke-visit",
            "hubspoke",
            "hubspoke-tls",
            TESTKIT,
        ],
    ),
];

#[test]
fn the_services_meet_over_http_only() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    let packages = metadata.workspace_packages();
    let names: BTreeSet<String> = packages.iter().map(|package| package.name.to_string()).collect();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into();
    assert_eq!(names, allowed.keys().map(|name| (*name).to_owned()).collect(), "each package has a rule");
    for package in packages {
        for dependency in package.dependencies.iter().filter(|used| names.contains(&used.name)) {
            let in_tests = dependency.name == TESTKIT && dependency.kind == DependencyKind::Development;
            let may = in_tests || allowed[package.name.as_str()].contains(&dependency.name.as_str());
            assert!(may, "{} may not depend on {}", package.name, dependency.name);
        }
    }
}

#[test]
fn folder_package_and_binary_are_called_the_same() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    for package in metadata.workspace_packages() {
        let folder = package.manifest_path.parent().unwrap().file_name().unwrap();
        let suffix = package.name.strip_prefix("hubspoke-").unwrap_or("hub");
        assert_eq!(folder, suffix, "{}", package.name);
        for binary in package.targets.iter().filter(|target| target.is_bin()) {
            assert_eq!(binary.name, suffix, "{}", package.name);
        }
    }
}
