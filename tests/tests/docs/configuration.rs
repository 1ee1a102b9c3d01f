//! The configuration page: its tables are made from the comments in `config/*.toml`.

use std::fmt::Write;

use hubspoke::config::HubConfig;
use hubspoke_chassis::config::{ConfigSource, Layers};
use hubspoke_chassis::{Process, Table};
use serde_json::Value;

/// A key of a file, with what the file says of it.
struct Key {
    /// With its table: `gateway.timeouts.connect`.
    path: String,
    value: String,
    comment: String,
}

/// A table of a file: its keys, or text that is shown as it is.
#[derive(Default)]
struct Section {
    /// Empty for the keys before the first table.
    name: String,
    comment: String,
    keys: Vec<Key>,
    example: String,
}

/// Reads a file of `config/`: a comment describes the key or the table behind it, and keys may be commented out.
fn read(text: &str) -> Vec<Section> {
    let mut sections = vec![Section::default()];
    let mut comment: Vec<&str> = Vec::new();
    let is_name =
        |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.".contains(&b));
    for line in text.lines() {
        let section = sections.last_mut().unwrap();
        let shown = line.strip_prefix("# ").or_else(|| line.strip_prefix('#')).unwrap_or(line);
        let table =
            shown.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).filter(|name| is_name(name));
        if let Some(name) = table {
            let comment = sentence(&std::mem::take(&mut comment));
            sections.push(Section { name: name.to_owned(), comment, ..Section::default() });
        } else if section.name.starts_with("gateway.services.") && !line.is_empty() {
            section.example.push_str(shown);
            section.example.push('\n');
        } else if let Some((name, value)) = shown.split_once(" = ").filter(|(name, _)| is_name(name)) {
            let dot = if section.name.is_empty() { "" } else { "." };
            let path = format!("{}{dot}{name}", section.name);
            let comment = sentence(&std::mem::take(&mut comment));
            assert!(!comment.is_empty(), "{path} has no comment");
            section.keys.push(Key { path, value: value.to_owned(), comment });
        } else if line.is_empty() {
            comment.clear();
        } else {
            comment.push(shown);
        }
    }
    sections
}

/// The lines of a comment as the cell of a table; lines further in are choices: a word, and what it means.
fn sentence(lines: &[&str]) -> String {
    let mut text = String::new();
    for line in lines {
        match line.strip_prefix("  ").map(|choice| choice.trim().split_once(' ').unwrap()) {
            Some((word, meaning)) => write!(text, "<br>`{word}`: {}", meaning.trim()).unwrap(),
            None if text.is_empty() => text.push_str(line),
            None => write!(text, " {line}").unwrap(),
        }
    }
    text.replace('|', "\\|")
}

/// The sections of one file, with `defaults` to tell which keys are unset.
fn document(name: &str, defaults: &Value) -> String {
    let text = std::fs::read_to_string(crate::root().join(format!("config/{name}.toml"))).unwrap();
    let mut out = format!("\n## {name}.toml\n");
    for section in read(&text) {
        let Section { name, comment, keys, example } = section;
        if !name.is_empty() {
            write!(out, "\n### `[{name}]`\n").unwrap();
        }
        if !comment.is_empty() {
            write!(out, "\n{comment}\n").unwrap();
        }
        if !example.is_empty() {
            write!(out, "\n```toml\n[{name}]\n{example}```\n").unwrap();
        }
        if keys.is_empty() {
            continue;
        }
        out.push_str("\n| key | default | meaning |\n|---|---|---|\n");
        for Key { path, value, comment } in keys {
            let pointer = format!("/{}", path.replace('.', "/"));
            let default = defaults.pointer(&pointer).unwrap_or_else(|| panic!("{path} is no key"));
            let shown = if default.is_null() { "unset".to_owned() } else { format!("`{value}`") };
            let key = path.rsplit('.').next().unwrap();
            writeln!(out, "| `{key}` | {shown} | {comment} |").unwrap();
        }
    }
    out
}

/// The defaults of a process as one tree of keys.
fn defaults<T: Table>(process: &Process) -> Value {
    let (config, _) = Layers::config::<T>(process, &ConfigSource::default()).unwrap();
    tree(serde_json::to_value(config.common).unwrap(), process.name, config.own)
}

fn tree<T: Table>(mut common: Value, name: &str, own: T) -> Value {
    let mut own = serde_json::to_value(own).unwrap();
    for key in T::BESIDE {
        common[*key] = own.as_object_mut().unwrap().remove(*key).unwrap();
    }
    match &mut common[name] {
        Value::Object(table) => table.extend(own.as_object().unwrap().clone()),
        table => *table = own,
    }
    common
}

fn hub_defaults() -> Value {
    let config = HubConfig::load(&ConfigSource::default()).unwrap().0;
    let common = tree(serde_json::to_value(config.common).unwrap(), "hub", config.hub);
    let common = tree(common, "registry", config.registry);
    let common = tree(common, "gateway", config.gateway);
    tree(common, "visit", config.visit)
}

fn generated() -> String {
    document("registry", &defaults::<hubspoke_registry::Settings>(&hubspoke_registry::PROCESS))
        + &document("gateway", &defaults::<hubspoke_gateway::GatewayConfig>(&hubspoke_gateway::PROCESS))
        + &document("log", &defaults::<hubspoke_log::LogConfig>(&hubspoke_log::PROCESS))
        + &document("visit", &defaults::<hubspoke_visit::VisitConfig>(&hubspoke_visit::PROCESS))
        + &document("hub", &hub_defaults())
}

#[test]
fn the_page_shows_the_files() {
    crate::check_generated("docs/configuration.md", "config/*.toml", &generated());
}
