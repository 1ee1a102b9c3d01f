//! The sender of a request. Pure.

use std::fmt;
use std::sync::Arc;

use hubspoke_protocol::{REGISTRY_SERVICE, check_name};

use super::role::{Right, Role};
use super::token_set::TokenEntry;

/// The sender of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Anybody: this process knows no tokens.
    Anybody,
    /// Whoever has the process's own token (`registry.token`), and with it all rights.
    Own,
    /// The registry, which knows this instance's push key.
    Registry,
    /// Whoever has a token of the tokens file.
    Token(Arc<TokenEntry>),
    /// Whoever has a certificate with these names.
    Certificate(CertificateNames),
}

/// The names in a certificate, each with its rights: a service's name makes a member of it, [`OPERATOR_NAME`] and
/// [`READER_NAME`] have those roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateNames {
    shown: String,
    members: Role,
    is_registry: bool,
    roles: Vec<Role>,
}

/// The name of operators in certificates. It has a slash, so no service has it.
pub const OPERATOR_NAME: &str = "role/operator";
/// The name of readers in certificates.
pub const READER_NAME: &str = "role/reader";

impl CertificateNames {
    pub(super) fn new(names: &[String]) -> Self {
        let role = |name: &str, role: Role| names.iter().any(|own| own == name).then_some(role);
        let roles = [role(OPERATOR_NAME, Role::Operator), role(READER_NAME, Role::Reader)];
        let services = names.iter().filter(|name| check_name(name).is_ok());
        Self {
            shown: names.join(", "),
            members: Role::Member(services.cloned().collect()),
            is_registry: names.iter().any(|name| name == REGISTRY_SERVICE),
            roles: roles.into_iter().flatten().collect(),
        }
    }

    fn may(&self, right: Right<'_>) -> bool {
        let is_member = matches!(&self.members, Role::Member(names) if !names.is_empty());
        // Registries ask each other what only operators may ask, and read entries for the page.
        let as_registry = self.is_registry && matches!(right, Right::Operate | Right::ReadEntries(_));
        as_registry || is_member && self.members.may(right) || self.roles.iter().any(|role| role.may(right))
    }
}

impl Subject {
    /// Whether the subject has a right.
    pub fn may(&self, right: Right<'_>) -> bool {
        match self {
            Self::Anybody | Self::Own => true,
            Self::Registry => matches!(right, Right::ReadEntries(_)),
            Self::Token(entry) => match right {
                Right::Host(host) => entry.hosts.iter().any(|own| own == host),
                _ => entry.role.may(right),
            },
            Self::Certificate(names) => names.may(right),
        }
    }

    /// A member's name, to which limits apply, and those of its services; `None` for subjects without limits.
    pub fn member(&self) -> Option<(&str, &[String])> {
        match self {
            Self::Token(entry) => match &entry.role {
                Role::Member(names) => Some((&entry.name, names)),
                Role::Operator | Role::Reader => None,
            },
            Self::Certificate(CertificateNames { shown, members: Role::Member(names), .. }) => {
                Some((shown, names))
            }
            Self::Anybody | Self::Own | Self::Registry | Self::Certificate(_) => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anybody => f.write_str("anybody"),
            Self::Own => f.write_str("the process's own token"),
            Self::Registry => f.write_str("the registry"),
            Self::Token(entry) => write!(f, "the token {} ({})", entry.name, entry.role),
            Self::Certificate(names) => write!(f, "the certificate of {}", names.shown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str]) -> Subject {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        Subject::Certificate(CertificateNames::new(&names))
    }

    fn subject(role: Role) -> Subject {
        Subject::Token(Arc::new(TokenEntry {
            name: "t".to_owned(),
            role,
            hosts: Vec::new(),
            expires: None,
            hash: [0; 32],
        }))
    }

    #[test]
    fn each_role_has_its_rights_and_no_others() {
        let rights = [
            Right::Register("shop"),
            Right::Register("visit"),
            Right::Operate,
            Right::ReadEntries("log"),
            Right::WriteEntries(""),
            Right::WriteEntries("shop"),
            Right::WriteEntries("visit"),
        ];
        let of = |subject: &Subject| rights.map(|right| subject.may(right));
        let shop = subject(Role::Member(vec!["cart".to_owned(), "shop".to_owned()]));
        assert_eq!(of(&shop), [true, false, false, false, true, true, false]);
        assert_eq!(of(&subject(Role::Operator)), [false, false, true, true, false, false, false]);
        assert_eq!(of(&subject(Role::Reader)), [false, false, false, true, false, false, false]);
        assert_eq!(of(&Subject::Registry), [false, false, false, true, false, false, false]);
        assert_eq!((of(&Subject::Own), of(&Subject::Anybody)), ([true; 7], [true; 7]));
        assert_eq!(of(&certificate(&["shop", "cart"])), [true, false, false, false, true, true, false]);
        assert_eq!(of(&certificate(&[OPERATOR_NAME])), [false, false, true, true, false, false, false]);
        assert_eq!(of(&certificate(&[READER_NAME])), [false, false, false, true, false, false, false]);
        assert_eq!(of(&certificate(&["registry"])), [false, false, true, true, true, false, false]);
        assert_eq!(of(&certificate(&["role/other", "x/shop"])), [false; 7]);
        let log = subject(Role::Member(vec!["log".to_owned()]));
        assert!(!log.may(Right::Host("shop.example")));
        let entry: TokenEntry =
            format!("t member shop host=shop.example sha256:{}", "0".repeat(64)).parse().unwrap();
        let with_host = Subject::Token(Arc::new(entry));
        assert!(with_host.may(Right::Host("shop.example")) && !with_host.may(Right::Host("example")));
        assert!(!with_host.may(Right::Register("shop.example")) && with_host.may(Right::Register("shop")));
        assert!(log.may(Right::ReadEntries("log")) && !log.may(Right::ReadEntries("audit")), "its siblings'");
    }
}
