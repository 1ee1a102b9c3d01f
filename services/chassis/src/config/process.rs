/// The constants of a kind of process: its name, version and default addresses.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Process {
    /// Name of the service, the binary, the config file and the config table.
    pub name: &'static str,
    /// Default of `listen`.
    pub listen: &'static str,
    /// Default of `control_listen`, for a service whose public port must not serve control routes.
    pub control_listen: Option<&'static str>,
    /// Version of the package.
    pub version: &'static str,
}

impl Process {
    /// A process that listens on a free port of 127.0.0.1 by default. `version` is usually
    /// `env!("CARGO_PKG_VERSION")`.
    pub const fn new(name: &'static str, version: &'static str) -> Self {
        Self { name, listen: "127.0.0.1:0", control_listen: None, version }
    }

    /// Sets the default of `listen`, an IP address and a port.
    #[must_use]
    pub const fn with_listen(self, listen: &'static str) -> Self {
        Self { listen, ..self }
    }

    /// Sets the default of `control_listen`, an IP address and a port.
    #[must_use]
    pub const fn with_control_listen(self, control_listen: &'static str) -> Self {
        Self { control_listen: Some(control_listen), ..self }
    }
}

impl From<&'static str> for Process {
    /// A process of this name and no version.
    fn from(name: &'static str) -> Self {
        Self::new(name, "0.0.0")
    }
}
