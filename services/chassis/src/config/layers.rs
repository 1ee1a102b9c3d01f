//! Reading the layers, and saying which of them is wrong.

use std::path::{Path, PathBuf};

use figment::error::Kind;
use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Value};
use figment::{Figment, Provider};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::env::{self, Env};
use super::{Common, Config, Process, Table};

/// What is outside the process: where files are, which file was named, the environment.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The file of `--config`, which must exist.
    pub file: Option<PathBuf>,
    /// The folder of `NAME.toml`, which need not exist.
    pub folder: PathBuf,
    /// Environment variables.
    pub vars: Vec<(String, String)>,
}

impl Source {
    /// The process's own environment, and `config` below the working directory.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        };
        Self { file, folder: "config".into(), vars: std::env::vars_os().filter_map(text).collect() }
    }
}

/// A configuration that can't be used. Says, in one line, which file or variable is wrong and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }
}

/// The layers of one process's configuration, read and checked for unknown top-level keys.
#[derive(Debug, Clone)]
pub struct Layers {
    pub(super) figment: Figment,
    common: Dict,
}

/// In `[registry]`: the keys that every process has. The rest are the registry's own.
const LINK: &str = "registry";

impl Layers {
    /// Reads the configuration of a process with one table of its own.
    ///
    /// # Errors
    /// [`ConfigError`] for the first thing that is wrong.
    pub fn config<T: Table>(process: &Process, source: &Source) -> Result<(Config<T>, Self), ConfigError> {
        let own = defaults_of(&T::default())?;
        let layers = Self::read(process, &[(process.name, own)], source)?;
        let config = Config { common: layers.common()?, own: layers.table(process.name)? };
        Ok((config, layers))
    }

    /// Reads the layers of a process with the given tables, each with its defaults.
    ///
    /// # Errors
    /// [`ConfigError`] where a file can't be read or a top-level key is unknown.
    pub fn read(process: &Process, tables: &[(&str, Dict)], source: &Source) -> Result<Self, ConfigError> {
        let common = Common::of(process).map_err(|error| ConfigError(error.to_string()))?;
        let common = defaults_of(&common)?;
        let mut defaults = common.clone();
        for (name, table) in tables {
            match defaults.entry((*name).to_owned()).or_insert_with(|| Value::from(Dict::new())) {
                Value::Dict(_, dict) => dict.extend(table.clone()),
                _ => return Err(ConfigError(format!("a table may not be called {name}"))),
            }
        }
        let env = Env { vars: &source.vars, defaults: &defaults };
        env.data().map_err(|error| ConfigError(error.to_string()))?;
        let mut figment = Figment::from(Serialized::defaults(defaults.clone()));
        if let Some(file) = file(process, source)? {
            figment = figment.merge(Toml::file_exact(file));
        }
        let layers = Self { figment: figment.merge(env), common };
        layers.refuse_unknown(&defaults)?;
        Ok(layers)
    }

    /// The keys that every process has.
    ///
    /// # Errors
    /// [`ConfigError`] for a wrong value.
    pub fn common(&self) -> Result<Common, ConfigError> {
        let mut dict = self.root()?;
        dict.retain(|key, _| self.common.contains_key(key));
        if let Some(Value::Dict(_, link)) = dict.get_mut(LINK) {
            link.retain(|key, _| self.link_keys().contains_key(key));
        }
        let common: Common = self.extract(Value::from(dict), "")?;
        common.check().map_err(|(key, why)| self.wrong(&key, &why))?;
        Ok(common)
    }

    /// A table of the process's own.
    ///
    /// # Errors
    /// [`ConfigError`] for an unknown key or a wrong value.
    pub fn table<T: Table>(&self, name: &str) -> Result<T, ConfigError> {
        let mut dict = match self.root()?.remove(name) {
            Some(Value::Dict(_, dict)) => dict,
            Some(_) => return Err(self.wrong(name, "must be a table")),
            None => Dict::new(),
        };
        if name == LINK {
            dict.retain(|key, _| !self.link_keys().contains_key(key));
        }
        let table: T = self.extract(Value::from(dict), name)?;
        table.check().map_err(|(key, why)| self.wrong(&format!("{name}.{key}"), &why))?;
        Ok(table)
    }

    /// Gives a key another default, where one follows from other values.
    #[must_use]
    pub fn with_default(mut self, key: &str, value: &str) -> Self {
        if self.origin(key) == Origin::Default {
            self.figment = self.figment.merge(Serialized::default(key, value));
        }
        self
    }

    /// Refuses a key that is set, since it would do nothing.
    ///
    /// # Errors
    /// [`ConfigError`] with `why`, where a file or a variable sets it.
    pub fn refuse(&self, key: &str, why: &str) -> Result<(), ConfigError> {
        if self.origin(key) == Origin::Default { Ok(()) } else { Err(self.wrong(key, why)) }
    }

    /// Everything as merged, by figment.
    pub(super) fn root(&self) -> Result<Dict, ConfigError> {
        self.figment.extract::<Dict>().map_err(|error| self.explain(&error, ""))
    }

    fn link_keys(&self) -> Dict {
        self.common.get(LINK).and_then(Value::as_dict).cloned().unwrap_or_default()
    }

    fn refuse_unknown(&self, defaults: &Dict) -> Result<(), ConfigError> {
        let root = self.root()?;
        if let Some(key) = root.keys().find(|key| !defaults.contains_key(*key)) {
            return Err(self.unknown(key, defaults.keys().map(String::as_str)));
        }
        // A process that is no registry has no registry's keys.
        let known = defaults.get(LINK).and_then(Value::as_dict);
        if let (Some(known), Some(Value::Dict(_, link))) = (known, root.get(LINK))
            && let Some(key) = link.keys().find(|key| !known.contains_key(*key))
        {
            return Err(self.unknown(&format!("{LINK}.{key}"), known.keys().map(String::as_str)));
        }
        Ok(())
    }

    fn extract<T: DeserializeOwned>(&self, value: Value, below: &str) -> Result<T, ConfigError> {
        value.deserialize::<T>().map_err(|error| self.explain(&error, below))
    }

    fn explain(&self, error: &figment::Error, below: &str) -> ConfigError {
        let mut path: Vec<&str> = if below.is_empty() { vec![] } else { vec![below] };
        path.extend(error.path.iter().map(String::as_str));
        if let Kind::UnknownField(field, known) = &error.kind {
            // Figment's path ends with the field for some sources and with its table for others.
            if path.last() != Some(&field.as_str()) {
                path.push(field);
            }
            return self.unknown(&path.join("."), known.iter().copied());
        }
        if path.is_empty() {
            // A file that is no TOML: figment names it, in several lines.
            return ConfigError(error.to_string().split_whitespace().collect::<Vec<_>>().join(" "));
        }
        self.wrong(&path.join("."), &error.kind.to_string())
    }

    fn unknown<'a>(&self, path: &str, known: impl Iterator<Item = &'a str>) -> ConfigError {
        let known: Vec<_> = known.collect();
        self.wrong(path, &format!("unknown key; known here: {}", known.join(", ")))
    }

    fn wrong(&self, path: &str, why: &str) -> ConfigError {
        match self.origin(path) {
            Origin::Default => ConfigError(format!("{path}: {why}")),
            Origin::File(file) => ConfigError(format!("{}: {path}: {why}", file.display())),
            Origin::Variable(name) => ConfigError(format!("{name}: {why}")),
        }
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
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    Default,
    File(PathBuf),
    Variable(String),
}

/// The file to read: the one named, which must exist, or the usual one where it does.
fn file(process: &Process, source: &Source) -> Result<Option<PathBuf>, ConfigError> {
    let readable = |file: &Path| {
        std::fs::File::open(file)
            .map(drop)
            .map_err(|error| ConfigError(format!("{}: can't be read: {error}", file.display())))
    };
    if let Some(named) = &source.file {
        return readable(named).map(|()| Some(named.clone()));
    }
    let usual = source.folder.join(process.name).with_extension("toml");
    if usual.exists() { readable(&usual).map(|()| Some(usual)) } else { Ok(None) }
}

/// A table's defaults, for [`Layers::read`].
///
/// # Errors
/// Where the defaults are no table: a bug of the table's type.
pub fn defaults_of(table: &impl Serialize) -> Result<Dict, ConfigError> {
    let value = Value::serialize(table).map_err(|error| ConfigError(error.to_string()))?;
    value.into_dict().ok_or_else(|| ConfigError("the defaults are no table".to_owned()))
}
