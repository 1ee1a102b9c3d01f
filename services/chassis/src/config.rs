//! Configuration: defaults, then a TOML file, then the environment (`HUB_…`, with `__` between levels).
//!
//! A process has the keys of [`Common`] at the top and one table of its own, named like the service; the `hub` command
//! has the tables of all services. Unknown keys and invalid values are errors that name the file or the variable.
//! Nothing here reads the environment or the network: a [`ConfigSource`] passes both in as values.

pub use self::common::{AccessSettings, Common, IdentitySettings, LogSending, RegistryLink, Telemetry};
pub(crate) use self::env::variable;
pub use self::error::ConfigError;
pub use self::layers::{ConfigSource, Layers, TableDefaults};
pub use self::process::Process;
pub use self::secret::Secret;
pub use self::table::{Config, NoTable, Table, networks};

mod common;
mod env;
mod error;
mod explain;
mod layers;
mod process;
mod secret;
mod show;
mod table;
mod text;
