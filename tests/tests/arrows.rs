//! Which package may depend on which, and that nothing else of the workspace is used: the map in ARCHITECTURE.md,
//! held by a test.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::MetadataCommand;

/// Package → the packages of the workspace that it may depend on, in any way.
const ALLOWED: [(&str, &[&str]); 9] = [
    ("hubspoke-protocol", &[]),
    ("hubspoke-client", &["hubspoke-protocol"]),
    ("hubspoke-chassis", &["hubspoke-protocol", "hubspoke-client"]),
    ("hubspoke-registry", &["hubspoke-protocol", "hubspoke-client", "hubspoke-chassis"]),
    ("hubspoke-gateway", &["hubspoke-protocol", "hubspoke-client", "hubspoke-chassis"]),
    ("hubspoke-log", &["hubspoke-protocol", "hubspoke-client", "hubspoke-chassis"]),
    ("hubspoke-visit", &["hubspoke-protocol", "hubspoke-client", "hubspoke-chassis"]),
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
        ],
    ),
];

#[test]
fn the_services_meet_over_http_only() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    let packages = metadata.workspace_packages();
    let names: BTreeSet<String> = packages.iter().map(|package| package.name.to_string()).collect();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into();
    assert_eq!(names, allowed.keys().map(|name| (*name).to_owned()).collect(), "a package without a rule");
    for package in packages {
        let used = package.dependencies.iter().map(|dependency| dependency.name.as_str());
        for used in used.filter(|name| names.contains(*name)) {
            let may = allowed[package.name.as_str()].contains(&used);
            assert!(may, "{} may not depend on {used}", package.name);
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
