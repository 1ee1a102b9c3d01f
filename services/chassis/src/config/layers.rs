//! Reads and merges the layers, and finds the layer that an error comes from.

use std::fs::File;
use std::path::{Path, PathBuf};

use figment::error::Kind;
use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Value};
use figment::{Figment, Provider};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::common::{Common, DEFAULT_REGISTRY, with_brackets};
use super::env::{self, Env};
use super::error::ConfigError;
use super::explain::{at, invalid_file, invalid_value, nearest};
use super::process::Process;
use super::table::{Config, Table};

/// The table `registry` holds the keys of [`RegistryLink`](super::RegistryLink), which every process has, and the
/// registry's own settings.
const REGISTRY: &str = "registry";
/// With the second, the default of the first begins with `https`.
const REGISTRY_URL: &str = "registry.url";
const TLS_CERT: &str = "tls.cert";

/// Everything outside the process that its configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct ConfigSource {
    /// The file of `--config`, which must exist.
    pub file: Option<PathBuf>,
    /// The folder of `NAME.toml`, which may be missing.
    pub folder: PathBuf,
    /// Environment variables.
    pub vars: Vec<(String, String)>,
}

impl ConfigSource {
    /// The environment of this process, and `config` in the working directory.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        };
        Self { file, folder: "config".into(), vars: std::env::vars_os().filter_map(text).collect() }
    }
}

/// A table's name and defaults, for [`Layers::read`].
#[derive(Debug, Clone)]
pub struct TableDefaults<'a> {
    name: &'a str,
    values: Dict,
    /// The defaults of the tables in [`Table::BESIDE`].
    beside: Vec<(&'static str, Value)>,
}

impl<'a> TableDefaults<'a> {
    /// The defaults of the table `name`.
    ///
    /// # Errors
    /// If `table` does not serialize to a table: a bug in its type.
    pub fn new<T: Table>(name: &'a str, table: &T) -> Result<Self, ConfigError> {
        let mut values = dict(table)?;
        let beside = T::BESIDE.iter().filter_map(|key| Some((*key, values.remove(*key)?))).collect();
        Ok(Self { name, values, beside })
    }
}

fn dict(table: &impl Serialize) -> Result<Dict, ConfigError> {
    let value = Value::serialize(table).map_err(|error| ConfigError::new(error.to_string()))?;
    value.into_dict().ok_or_else(|| ConfigError::new("the defaults are not a table"))
}

/// The merged layers of one process's configuration. Top-level keys are known; the values are not checked yet.
#[derive(Debug, Clone)]
pub struct Layers {
    figment: Figment,
    common: Dict,
    /// All keys with their defaults.
    defaults: Dict,
}

impl Layers {
    /// Reads the configuration of a service with its table.
    ///
    /// # Errors
    /// [`ConfigError`] for the first invalid value.
    pub fn config<T: Table>(
        process: &Process,
        source: &ConfigSource,
    ) -> Result<(Config<T>, Self), ConfigError> {
        let own = TableDefaults::new(process.name, &T::default())?;
        let layers = Self::read(process, &[own], source)?;
        let config = Config { common: layers.common()?, own: layers.table(process.name)? };
        Ok((config, layers))
    }

    /// Reads the layers of a process with these tables.
    ///
    /// # Errors
    /// [`ConfigError`] if a file can't be read or a top-level key is unknown.
    pub fn read(
        process: &Process,
        tables: &[TableDefaults<'_>],
        source: &ConfigSource,
    ) -> Result<Self, ConfigError> {
        let common = Common::of(process).map_err(|error| ConfigError::new(error.to_string()))?;
        let common = dict(&common)?;
        let mut defaults = common.clone();
        for TableDefaults { name, values, beside } in tables {
            for (key, value) in beside {
                defaults.entry((*key).to_owned()).or_insert_with(|| value.clone());
            }
            match defaults.entry((*name).to_owned()).or_insert_with(|| Value::from(Dict::new())) {
                Value::Dict(_, dict) => dict.extend(values.clone()),
                _ => return Err(ConfigError::new(format!("a table can't be named {name}: it is a key"))),
            }
        }
        let env = Env { vars: &source.vars, defaults: &defaults };
        env.data().map_err(|error| ConfigError::new(error.to_string()))?;
        let mut figment = Figment::from(Serialized::defaults(defaults.clone()));
        if let Some(file) = file(process, source)? {
            figment = figment.merge(Toml::file_exact(file));
        }
        let figment = figment.merge(env);
        let layers = Self { figment, common, defaults };
        layers.check_keys()?;
        let is_tls = layers.origin(TLS_CERT) != Origin::Default;
        Ok(if is_tls {
            layers.with_default(REGISTRY_URL, &format!("https{DEFAULT_REGISTRY}"))
        } else {
            layers
        })
    }

    /// The keys that every process has.
    ///
    /// # Errors
    /// [`ConfigError`] for an invalid value.
    pub fn common(&self) -> Result<Common, ConfigError> {
        let mut dict = self.merged()?;
        dict.retain(|key, _| self.common.contains_key(key));
        if let Some(Value::Dict(_, registry)) = dict.get_mut(REGISTRY) {
            registry.retain(|key, _| self.is_link_key(key));
        }
        let mut common: Common = self.extract(Value::from(dict), "", &[])?;
        common.advertise = common.advertise.map(with_brackets);
        common.check().map_err(|(key, why)| self.error_at(&key, &why))?;
        Ok(common)
    }

    /// One of the process's own tables.
    ///
    /// # Errors
    /// [`ConfigError`] for an unknown key or an invalid value.
    pub fn table<T: Table>(&self, name: &str) -> Result<T, ConfigError> {
        let mut merged = self.merged()?;
        let mut dict = match merged.remove(name) {
            Some(Value::Dict(_, dict)) => dict,
            Some(_) => return Err(self.error_at(name, "must be a table")),
            None => Dict::new(),
        };
        for key in T::BESIDE {
            if dict.contains_key(*key) {
                return Err(self.error_at(&format!("{name}.{key}"), &format!("is set as [{key}]")));
            }
            dict.extend(merged.remove(*key).map(|value| ((*key).to_owned(), value)));
        }
        if name == REGISTRY {
            dict.retain(|key, _| !self.is_link_key(key));
        }
        let table: T = self.extract(Value::from(dict), name, T::BESIDE)?;
        table.check().map_err(|(key, why)| {
            let beside = T::BESIDE.iter().any(|table| key.split('.').next() == Some(*table));
            self.error_at(&if beside { key } else { format!("{name}.{key}") }, &why)
        })?;
        Ok(table)
    }

    /// Replaces the default of a key, for a default that depends on other values.
    #[must_use]
    pub fn with_default(mut self, key: &str, value: &str) -> Self {
        if self.origin(key) == Origin::Default {
            self.figment = self.figment.merge(Serialized::default(key, value));
        }
        self
    }

    /// Refuses a key that is set but would have no effect.
    ///
    /// # Errors
    /// [`ConfigError`] with `why`, if a file or a variable sets it.
    pub fn refuse(&self, key: &str, why: &str) -> Result<(), ConfigError> {
        if self.origin(key) == Origin::Default { Ok(()) } else { Err(self.error_at(key, why)) }
    }

    /// All values, merged.
    pub(super) fn merged(&self) -> Result<Dict, ConfigError> {
        let mut merged = self.figment.extract::<Dict>().map_err(|error| self.explain(&error, "", &[]))?;
        split_lists(&mut merged, &self.defaults);
        Ok(merged)
    }

    /// Where the value of a key comes from.
    pub(super) fn origin(&self, path: &str) -> Origin {
        let Some(metadata) = self.figment.find_metadata(path) else { return Origin::Default };
        match metadata.source.as_ref().and_then(|source| source.file_path()) {
            _ if metadata.name == env::LAYER => Origin::Variable(env::variable(path)),
            Some(file) => Origin::File(file.to_owned()),
            None => Origin::Default,
        }
    }

    fn is_link_key(&self, key: &str) -> bool {
        self.common.get(REGISTRY).and_then(Value::as_dict).is_some_and(|link| link.contains_key(key))
    }

    fn check_keys(&self) -> Result<(), ConfigError> {
        let (merged, defaults) = (self.merged()?, &self.defaults);
        if let Some(key) = merged.keys().find(|key| !defaults.contains_key(*key)) {
            return Err(self.unknown_key(key, defaults.keys().map(String::as_str)));
        }
        // Only the registry itself has more keys in this table than the link to it.
        let known = defaults.get(REGISTRY).and_then(Value::as_dict);
        if let (Some(known), Some(Value::Dict(_, registry))) = (known, merged.get(REGISTRY))
            && let Some(key) = registry.keys().find(|key| !known.contains_key(*key))
        {
            return Err(self.unknown_key(&format!("{REGISTRY}.{key}"), known.keys().map(String::as_str)));
        }
        Ok(())
    }

    fn extract<T: DeserializeOwned>(
        &self,
        value: Value,
        table: &str,
        beside: &[&str],
    ) -> Result<T, ConfigError> {
        value.deserialize::<T>().map_err(|error| self.explain(&error, table, beside))
    }

    /// `beside` are the keys of the table that are tables of their own.
    fn explain(&self, error: &figment::Error, table: &str, beside: &[&str]) -> ConfigError {
        let is_beside = error.path.first().is_some_and(|key| beside.contains(&key.as_str()));
        let mut path: Vec<&str> = if table.is_empty() || is_beside { vec![] } else { vec![table] };
        path.extend(error.path.iter().map(String::as_str));
        if let Kind::UnknownField(field, known) = &error.kind {
            // Figment's path ends with the field for some sources and with its table for others.
            if path.last() != Some(&field.as_str()) {
                path.push(field);
            }
            return self
                .unknown_key(&path.join("."), known.iter().copied().filter(|key| !beside.contains(key)));
        }
        if path.is_empty() {
            let source = error.metadata.as_ref().and_then(|metadata| metadata.source.as_ref());
            let file =
                source.and_then(|source| source.file_path()).map(|file| format!("{}: ", file.display()));
            return ConfigError::new(format!("{}{}", file.unwrap_or_default(), invalid_file(&error.kind)));
        }
        let path = path.join(".");
        let merged = self.figment.extract::<Dict>().unwrap_or_default();
        self.error_at(&path, &invalid_value(&path, &error.kind, at(&merged, &path), &self.defaults))
    }

    fn unknown_key<'a>(&self, path: &str, known: impl Iterator<Item = &'a str>) -> ConfigError {
        let known = known.collect::<Vec<_>>().join(", ");
        let meant = nearest(path, &self.defaults).map(|key| match self.origin(path) {
            Origin::Variable(_) => format!("; did you mean {}?", env::variable(&key)),
            _ => format!("; did you mean {key}?"),
        });
        self.error_at(path, &format!("unknown key; known keys: {known}{}", meant.unwrap_or_default()))
    }

    /// An error about a key, which names the file or the variable that sets it.
    pub fn error_at(&self, path: &str, why: &str) -> ConfigError {
        ConfigError::new(match self.origin(path) {
            Origin::Default => format!("{path}: {why}"),
            Origin::File(file) => format!("{}: {path}: {why}", file.display()),
            Origin::Variable(name) => format!("{name}: {why}"),
        })
    }
}

/// Replaces comma-separated text by a list wherever the default is a list: people write lists so in variables, and
/// with brackets and quotes if they copy them from a file.
fn split_lists(values: &mut Dict, defaults: &Dict) {
    for (key, value) in values {
        match (value, defaults.get(key)) {
            (Value::Dict(_, below), Some(Value::Dict(_, defaults))) => split_lists(below, defaults),
            (value, Some(Value::Array(..))) => {
                if let Value::String(tag, text) = value {
                    let text = text.trim();
                    let inner =
                        text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
                    let items = inner.split(',').map(|item| item.trim().trim_matches(['"', '\'']).trim());
                    let items = items.filter(|item| !item.is_empty()).map(Value::from);
                    *value = Value::Array(*tag, items.collect());
                }
            }
            _ => {}
        }
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    Default,
    File(PathBuf),
    Variable(String),
}

/// The file to read: the one of `--config`, which must exist, or the usual one if it exists.
fn file(process: &Process, source: &ConfigSource) -> Result<Option<PathBuf>, ConfigError> {
    let readable = |file: &Path| {
        let failed = |error| ConfigError::new(format!("{}: can't be read: {error}", file.display()));
        File::open(file).map(drop).map_err(failed)
    };
    if let Some(named) = &source.file {
        return readable(named).map(|()| Some(named.clone()));
    }
    let usual = source.folder.join(process.name).with_extension("toml");
    if usual.exists() { readable(&usual).map(|()| Some(usual)) } else { Ok(None) }
}
