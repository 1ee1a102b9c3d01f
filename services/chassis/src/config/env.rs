//! The environment as a layer of configuration. Figment's own provider guesses a value's type from its text, so a
//! token of digits would become a number. Here the type of the default decides.

use figment::value::{Dict, Map, Value};
use figment::{Error, Metadata, Profile, Provider};

/// Every variable of ours starts with this. Kubernetes puts `REGISTRY_PORT` into every pod if a Service is named
/// `registry`, so variables without a prefix would be taken for ours.
const PREFIX: &str = "HUB_";
const LEVEL: &str = "__";
/// Name of this layer in figment's metadata.
pub(super) const LAYER: &str = "environment";

pub(super) struct Env<'a> {
    pub(super) vars: &'a [(String, String)],
    pub(super) defaults: &'a Dict,
}

impl Provider for Env<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named(LAYER)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let mut root = Dict::new();
        for (name, text) in self.vars {
            let Some(path) = name.strip_prefix(PREFIX) else { continue };
            if is_for_programs(path) {
                continue;
            }
            // Compose and shells write "unset" as an empty variable.
            if text.is_empty() {
                continue;
            }
            let path: Vec<String> = path.split(LEVEL).map(str::to_ascii_lowercase).collect();
            let value = typed(text, default_at(self.defaults, &path));
            insert(&mut root, &path, value).map_err(|why| Error::from(format!("{name}: {why}")))?;
        }
        Ok(Profile::Default.collect(root))
    }
}

/// Variables that `hub run` hands to programs, some of which have this configuration themselves.
fn is_for_programs(name: &str) -> bool {
    ["GATEWAY_URL", "INSTANCE"].contains(&name) || name.starts_with("URL_")
}

/// The variable that sets a key: `registry.url` → `HUB_REGISTRY__URL`.
pub(crate) fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', LEVEL).to_ascii_uppercase())
}

fn default_at<'a>(defaults: &'a Dict, path: &[String]) -> Option<&'a Value> {
    let (last, parents) = path.split_last()?;
    let mut dict = defaults;
    for key in parents {
        dict = dict.get(key)?.as_dict()?;
    }
    dict.get(last)
}

fn typed(text: &str, default: Option<&Value>) -> Value {
    match default {
        // All optional keys are text. A list is split like one in a file.
        Some(Value::String(..) | Value::Empty(..) | Value::Array(..)) => Value::from(text),
        _ => text.parse().unwrap_or_else(|never: std::convert::Infallible| match never {}),
    }
}

fn insert(dict: &mut Dict, path: &[String], value: Value) -> Result<(), &'static str> {
    let Some((key, rest)) = path.split_first() else { return Ok(()) };
    if rest.is_empty() {
        if dict.insert(key.clone(), value).is_some() {
            return Err("another variable sets the same key, or keys below it");
        }
        return Ok(());
    }
    match dict.entry(key.clone()).or_insert_with(|| Value::from(Dict::new())) {
        Value::Dict(_, below) => insert(below, rest, value),
        _ => Err("another variable sets the key above it"),
    }
}
