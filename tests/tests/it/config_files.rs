//! The files in `config/` are complete and correct: each shows every key of its process, with its default if it has
//! one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hubspoke_chassis::config::{ConfigError, ConfigSource, Layers};
use hubspoke_chassis::{Process, Table};
use serde_json::Value;

/// The settings of a single service are an example; they have no default.
const EXAMPLE: &str = "gateway.services.";

/// Only services that send entries use these.
const COPIES: [&str; 2] = ["log_client.copies", "log_client.fewer_copies"];

/// A line of a file that sets a key, commented out or not.
struct KeyLine {
    path: String,
    line: String,
}

/// The lines that set keys, and those that open `[tables]` (with a path that ends with a dot).
fn key_lines(text: &str) -> Vec<KeyLine> {
    let mut table = String::new();
    let name = |text: &str| {
        !text.is_empty()
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.".contains(c))
    };
    let mut found = Vec::new();
    for line in text.lines() {
        // A key that is commented out follows "# ". Anything indented further is prose.
        let line = line.strip_prefix("# ").unwrap_or(line);
        let within = line.strip_prefix('[').and_then(|line| line.split_once(']')).map(|(within, _)| within);
        if let Some(within) = within.filter(|within| name(within)) {
            table = format!("{within}.");
            found.push(KeyLine { path: table.clone(), line: line.to_owned() });
        } else if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| name(key)) {
            found.push(KeyLine { path: format!("{table}{key}"), line: line.to_owned() });
        }
    }
    found
}

/// The paths of all keys below a value, or only of those without a default.
fn paths(value: &Value, unset: bool) -> BTreeSet<String> {
    fn below(value: &Value, path: &str, unset: bool, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(table) => {
                for (key, value) in table {
                    let dot = if path.is_empty() { "" } else { "." };
                    below(value, &format!("{path}{dot}{key}"), unset, found);
                }
            }
            other if unset && !other.is_null() => {}
            _ => {
                found.insert(path.to_owned());
            }
        }
    }
    let mut found = BTreeSet::new();
    below(value, "", unset, &mut found);
    found
}

/// The configuration that a process reads from a file, or without one, as one tree of keys.
fn read<T: Table>(process: &Process, file: Option<PathBuf>) -> Result<Value, ConfigError> {
    read_source::<T>(process, &ConfigSource { file, ..ConfigSource::default() })
}

fn read_source<T: Table>(process: &Process, source: &ConfigSource) -> Result<Value, ConfigError> {
    let (config, _) = Layers::config::<T>(process, source)?;
    let mut all = serde_json::to_value(config.common).unwrap();
    let mut own = serde_json::to_value(config.own).unwrap();
    for key in T::BESIDE {
        all[*key] = own.as_object_mut().unwrap().remove(*key).unwrap();
    }
    match &mut all[process.name] {
        Value::Object(link) => link.extend(own.as_object().unwrap().clone()),
        table => *table = own,
    }
    Ok(all)
}

/// Checks the file of a process. `unused` are keys of the chassis that this process ignores.
fn complete<T: Table>(process: &Process, unused: &[&str]) {
    let name = process.name;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../config/{name}.toml"));
    let text = std::fs::read_to_string(&file).unwrap();
    let lines = key_lines(&text);
    let folder = tempfile::tempdir().unwrap();
    let load_without = |skip: &dyn Fn(&str) -> bool| {
        let file = folder.path().join("subset.toml");
        let lines = lines.iter().filter(|line| !skip(&line.path)).map(|line| format!("{}\n", line.line));
        std::fs::write(&file, lines.collect::<String>()).unwrap();
        read::<T>(process, Some(file)).unwrap_or_else(|error| panic!("{name}.toml: {error}"))
    };
    let defaults = read::<T>(process, None).unwrap();
    assert_eq!(read::<T>(process, Some(file)).unwrap(), defaults, "{name}.toml unchanged");

    let keys: BTreeSet<_> = lines.iter().map(|line| line.path.clone()).collect();
    let keys = keys.into_iter().filter(|path| !path.ends_with('.') && !path.starts_with(EXAMPLE));
    let mut expected = paths(&defaults, false);
    expected.retain(|path| !unused.contains(&path.as_str()));
    assert_eq!(keys.collect::<BTreeSet<_>>(), expected, "{name}.toml shows each key once");

    let unset = paths(&defaults, true);
    assert_eq!(
        load_without(&|path| unset.contains(path) || path.starts_with(EXAMPLE)),
        defaults,
        "{name}.toml with every key that has a default"
    );
    // The examples are valid too. Two pairs exclude each other, and with [tls], the registry's URL is another one.
    let excluded = ["registry.token", "advertise", "registry.url"];
    load_without(&|path| ["registry.token_file", "advertise_host", "registry.url"].contains(&path));
    let all = load_without(&|path| excluded.contains(&path));
    let shown = |path: &&String| !unused.contains(&path.as_str()) && !excluded.contains(&path.as_str());
    for path in unset.iter().filter(shown) {
        let pointer = format!("/{}", path.replace('.', "/"));
        assert!(!all.pointer(&pointer).unwrap().is_null(), "{name}.toml shows no value of {path}");
    }
}

#[test]
fn registry() {
    // The registry does not register anywhere.
    complete::<hubspoke_registry::Settings>(
        &hubspoke_registry::PROCESS,
        &["advertise", "advertise_host", "registry.url", COPIES[0], COPIES[1]],
    );
}

#[test]
fn gateway() {
    // It asks for no tokens.
    let unused = [COPIES[0], COPIES[1], "access.tokens_file"];
    complete::<hubspoke_gateway::GatewayConfig>(&hubspoke_gateway::PROCESS, &unused);
}

#[test]
fn log() {
    complete::<hubspoke_log::LogConfig>(&hubspoke_log::PROCESS, &COPIES);
}

#[test]
fn visit() {
    complete::<hubspoke_visit::VisitConfig>(&hubspoke_visit::PROCESS, &["access.tokens_file"]);
}

/// Where a value is set.
#[derive(Debug, Clone, Copy)]
enum Place {
    File,
    Variable,
}

/// The value of a key after this text was set for it.
fn value_of<T: Table>(process: &Process, path: &str, place: Place, text: &str) -> Result<Value, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let mut source = ConfigSource::default();
    match place {
        Place::Variable => {
            let name = format!("HUB_{}", path.replace('.', "__").to_uppercase());
            source.vars.push((name, text.to_owned()));
        }
        Place::File => {
            let file = folder.path().join("list.toml");
            std::fs::write(&file, format!("{path} = {text}\n")).unwrap();
            source.file = Some(file);
        }
    }
    let all = read_source::<T>(process, &source)?;
    Ok(all.pointer(&format!("/{}", path.replace('.', "/"))).unwrap().clone())
}

/// Sets every key of a process whose default is a list in all the ways in which people write lists.
fn lists<T: Table>(process: &Process) -> usize {
    let defaults = read::<T>(process, None).unwrap();
    let is_list = |path: &String| {
        defaults.pointer(&format!("/{}", path.replace('.', "/"))).is_some_and(Value::is_array)
    };
    let lists: Vec<String> = paths(&defaults, false).into_iter().filter(is_list).collect();
    for path in &lists {
        let set = |place, text: &str| value_of::<T>(process, path, place, text);
        let kinds = [
            ["log", "visit"],
            ["10.0.0.0/8", "fd00::/8"],
            ["a.example", "b.example"],
            ["http://a.example:1", "http://b.example:2"],
            ["mailto:a@a.example", "mailto:b@b.example"],
        ];
        let valid =
            kinds.into_iter().find(|[one, two]| set(Place::File, &format!("['{one}', '{two}']")).is_ok());
        let [one, two] = valid.unwrap_or_else(|| panic!("no valid value of {path} is known"));
        let expected = set(Place::File, &format!("['{one}', '{two}']")).unwrap();
        assert_eq!(expected.as_array().unwrap().len(), 2, "{path}");
        for text in [
            format!("{one},{two}"),
            format!(" {one} , {two} ,"),
            format!("[{one}, {two}]"),
            format!("[\"{one}\", \"{two}\"]"),
            format!("['{one}','{two}']"),
        ] {
            assert_eq!(set(Place::Variable, &text).unwrap(), expected, "{path} = {text}");
            let quoted = format!("'''{text}'''");
            assert_eq!(set(Place::File, &quoted).unwrap(), expected, "{path} = {quoted}");
        }
        assert_eq!(set(Place::Variable, one).unwrap().as_array().unwrap().len(), 1, "{path} = {one}");
        for (place, empty) in [
            (Place::Variable, "[]"),
            (Place::Variable, ","),
            (Place::Variable, " "),
            (Place::File, "[]"),
            (Place::File, "''"),
        ] {
            assert_eq!(set(place, empty).unwrap(), Value::Array(vec![]), "{path} = {empty:?} in a {place:?}");
        }
    }
    lists.len()
}

#[test]
fn every_list_takes_comma_separated_text() {
    let found = lists::<hubspoke_registry::Settings>(&hubspoke_registry::PROCESS)
        + lists::<hubspoke_gateway::GatewayConfig>(&hubspoke_gateway::PROCESS)
        + lists::<hubspoke_log::LogConfig>(&hubspoke_log::PROCESS)
        + lists::<hubspoke_visit::VisitConfig>(&hubspoke_visit::PROCESS);
    assert!(found >= 3, "allow_addrs, expose, trusted_proxies: {found}");
}
