//! The sender of a request. Pure.

use std::fmt;
use std::sync::Arc;

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
        }
    }

    /// The name of a member's token, to which limits apply; `None` for subjects without limits.
    pub fn member(&self) -> Option<(&str, &[String])> {
        match self {
            Self::Token(entry) => match &entry.role {
                Role::Member(names) => Some((&entry.name, names)),
                Role::Operator | Role::Reader => None,
            },
            Self::Anybody | Self::Own | Self::Registry => None,
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
