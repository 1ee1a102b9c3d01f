//! Names that the processes of a program share.

/// The hidden subcommands of the executable that uses this package.
pub const SUPERVISE: &str = "__supervise";
/// See [`SUPERVISE`].
pub const EXEC: &str = "__exec";
/// The variable by which processes of an instance are known: its `Id`.
pub(crate) const INSTANCE_VARIABLE: &str = "HUB_INSTANCE";
/// The registry's token. It is not for programs: they would have the rights of whoever runs them.
pub(crate) const TOKEN_VARIABLE: &str = "HUB_REGISTRY__TOKEN";
