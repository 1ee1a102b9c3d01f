//! The role of a token, and the rights that come with it. Pure.

use std::fmt;

/// The action that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right<'a> {
    /// Register, renew or deregister an instance of this service.
    Register(&'a str),
    /// Ask for this host, which is not the service's by its name.
    Host(&'a str),
    /// Drain or deregister instances of any service, switch self-protection.
    Operate,
    /// Read the entries that this service stores.
    ReadEntries(&'a str),
    /// Write entries in the name of this service; an empty name is none.
    WriteEntries(&'a str),
}

/// The role of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Takes part under these names, and writes entries.
    Member(Vec<String>),
    /// Drains and deregisters, switches self-protection, reads entries.
    Operator,
    /// Reads entries.
    Reader,
}

impl Role {
    pub(super) fn may(&self, right: Right<'_>) -> bool {
        match (self, right) {
            (Self::Member(_), Right::WriteEntries("")) => true,
            // The instances of the log service read each other's entries.
            (
                Self::Member(names),
                Right::Register(name) | Right::ReadEntries(name) | Right::WriteEntries(name),
            ) => names.iter().any(|own| own == name),
            (Self::Operator, Right::Operate | Right::ReadEntries(_))
            | (Self::Reader, Right::ReadEntries(_)) => true,
            _ => false,
        }
    }
}

impl fmt::Display for Right<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register(name) => write!(f, "register or deregister an instance of {name:?}"),
            Self::Host(host) => write!(f, "ask for the host {host:?}"),
            Self::Operate => f.write_str("drain, deregister others or switch self-protection"),
            Self::ReadEntries(_) => f.write_str("read log entries"),
            Self::WriteEntries("") => f.write_str("write log entries"),
            Self::WriteEntries(name) => write!(f, "write log entries of {name:?}"),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(names) => write!(f, "member {}", names.join(" ")),
            Self::Operator => f.write_str("operator"),
            Self::Reader => f.write_str("reader"),
        }
    }
}
