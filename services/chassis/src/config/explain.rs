//! Explains an invalid key or value in words, with a valid one.

use std::net::SocketAddr;

use figment::error::Kind;
use figment::value::{Dict, Value};

use super::text::{is_secret, shown};

/// How alike two names must be (Jaro-Winkler, 0 to 1) for one to be taken for the other misspelled.
const ALIKE: f64 = 0.88;

/// Why a value is invalid: the value, what is expected, and the default as an example.
pub(super) fn invalid_value(path: &str, kind: &Kind, found: Option<&Value>, defaults: &Dict) -> String {
    // An item of a list has its list's path and a number.
    let list = path.rsplit_once('.').filter(|(_, index)| index.parse::<usize>().is_ok());
    let path = list.map_or(path, |(list, _)| list);
    let default = at(defaults, path);
    let expected = match kind {
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => in_words(expected),
        Kind::UnknownVariant(_, variants) => format!("expected one of {}", variants.join(", ")),
        Kind::Message(message) if message.contains("socket address") => {
            "expected an IP address and a port".to_owned()
        }
        other => other.to_string(),
    };
    let found =
        found.filter(|_| !is_secret(path)).map(|value| format!("{} is not valid: ", shown("", value)));
    let example = example(path, default, defaults);
    let example = example.map(|example| format!(", for example {example}")).unwrap_or_default();
    format!("{}{expected}{example}", found.unwrap_or_default())
}

/// Why a file can't be read as TOML, on one line: the place and the reason, without the excerpt between them.
pub(super) fn invalid_file(kind: &Kind) -> String {
    let text = kind.to_string();
    let Some((place, rest)) =
        text.strip_prefix("TOML parse error at ").and_then(|text| text.split_once('\n'))
    else {
        return text.split_whitespace().collect::<Vec<_>>().join(" ");
    };
    let is_excerpt =
        |line: &&str| line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with('|');
    let reason: Vec<_> = rest.lines().filter(|line| !is_excerpt(line)).map(str::trim).collect();
    format!("{place}: not valid TOML: {}; text stands in quotes", reason.join(" ").trim())
}

/// The type that serde expects, in people's words.
fn in_words(expected: &str) -> String {
    let integers = [("u8", u64::from(u8::MAX)), ("u16", u64::from(u16::MAX)), ("u32", u64::from(u32::MAX))];
    if let Some((_, max)) = integers.iter().find(|(name, _)| *name == expected) {
        return format!("expected a whole number from 0 to {max}");
    }
    let words = match expected {
        "u64" | "usize" | "an integer" => "a whole number, 0 or more",
        "f32" | "f64" => "a number",
        "a boolean" | "bool" => "true or false",
        "a string" | "string" | "path string" => "text",
        "a sequence" => "a list",
        "parsable string" => "a size", // bytesize's words
        "a map" => "a table of keys",
        table if table.starts_with("struct ") => "a table of keys",
        other => other,
    };
    format!("expected {words}")
}

/// The default as an example of a valid value. The optional addresses have none; they are like `listen`.
fn example(path: &str, default: Option<&Value>, defaults: &Dict) -> Option<String> {
    let default = match default? {
        Value::Empty(..) if path.ends_with("listen") => at(defaults, "listen")?,
        Value::Empty(..) | Value::Dict(..) | Value::Array(..) => return None,
        default => default,
    };
    match default {
        // Port 0 is valid, but not what people mean.
        Value::String(_, text) => Some(match text.parse::<SocketAddr>() {
            Ok(addr) if addr.port() == 0 => SocketAddr::new(addr.ip(), 20_002).to_string(),
            _ => text.clone(),
        }),
        other => Some(shown("", other)),
    }
}

/// The known key that an unknown one is most likely meant to be. `HUB_REGISTRY_URL` is `registry_url`, which is
/// `registry.url` with one underscore too few.
pub(super) fn nearest(unknown: &str, defaults: &Dict) -> Option<String> {
    let mut keys = Vec::new();
    collect("", defaults, &mut keys);
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let flat = |path: &str| path.replace('.', "_");
    let likeness = |key: &String| {
        let whole = strsim::jaro_winkler(&flat(unknown), &flat(key));
        // A key in the wrong table, spelled right.
        if last(unknown) == last(key) { whole.max(0.95) } else { whole }
    };
    let scored = keys.into_iter().map(|key| (likeness(&key), key));
    let best = scored.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (best.0 >= ALIKE).then_some(best.1)
}

/// The paths of all keys and tables.
fn collect(above: &str, dict: &Dict, keys: &mut Vec<String>) {
    for (key, value) in dict {
        let path = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
        if let Value::Dict(_, below) = value {
            collect(&path, below, keys);
        }
        keys.push(path);
    }
}

/// The value at a path.
pub(super) fn at<'a>(dict: &'a Dict, path: &str) -> Option<&'a Value> {
    match path.split_once('.') {
        Some((table, rest)) => at(dict.get(table)?.as_dict()?, rest),
        None => dict.get(path),
    }
}
