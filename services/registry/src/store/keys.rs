//! The keys in etcd, below `PREFIX/registry/`.
//!
//! | key | value |
//! |---|---|
//! | `instances/NAME/ADDR` | a registration |
//! | `states/NAME/ADDR` | the state of an instance that is not passing |
//! | `removed/NAME/ADDR` | why an instance was removed, for as long as it is shown |
//! | `drains/NAME/ADDR` | an operator drains the address: since when it has had no instance, if it has none |
//! | `protection` | `true` or `false`: an operator has switched self-protection |
//! | `registries/ID` | a live registry, under its lease |
//! | `generation` | random: revisions of another generation mean nothing |

use std::sync::Arc;

use crate::catalog::InstanceKey;

/// What a key is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    Instance(InstanceKey),
    State(InstanceKey),
    Removed(InstanceKey),
    Drain(InstanceKey),
    Protection,
    Registry(Arc<str>),
    Generation,
}

/// The keys of one platform.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: Arc<str>,
}

impl Keys {
    /// The keys that begin with this.
    pub(super) fn new(prefix: String) -> Self {
        Self { prefix: prefix.into() }
    }

    /// What they begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn key(&self, subject: &Subject) -> String {
        let prefix = &self.prefix;
        let of = |kind, InstanceKey { name, addr }: &InstanceKey| format!("{prefix}{kind}/{name}/{addr}");
        match subject {
            Subject::Instance(key) => of("instances", key),
            Subject::State(key) => of("states", key),
            Subject::Removed(key) => of("removed", key),
            Subject::Drain(key) => of("drains", key),
            Subject::Protection => format!("{prefix}protection"),
            Subject::Registry(id) => format!("{prefix}registries/{id}"),
            Subject::Generation => format!("{prefix}generation"),
        }
    }

    /// What a key is about; `None` if this version does not know it.
    pub(super) fn parse(&self, key: &[u8]) -> Option<Subject> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&*self.prefix)?;
        let Some((kind, rest)) = rest.split_once('/') else {
            return match rest {
                "protection" => Some(Subject::Protection),
                "generation" => Some(Subject::Generation),
                _ => None,
            };
        };
        if kind == "registries" {
            return Some(Subject::Registry(rest.into()));
        }
        let (name, addr) = rest.split_once('/')?;
        let key = InstanceKey::new(name, addr);
        match kind {
            "instances" => Some(Subject::Instance(key)),
            "states" => Some(Subject::State(key)),
            "removed" => Some(Subject::Removed(key)),
            "drains" => Some(Subject::Drain(key)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let keys = Keys::new("/hubspoke/registry/".to_owned());
        let instance = InstanceKey::new("log", "[::1]:20002");
        for subject in [
            Subject::Instance(instance.clone()),
            Subject::State(instance.clone()),
            Subject::Removed(instance.clone()),
            Subject::Drain(instance),
            Subject::Protection,
            Subject::Registry("1f".into()),
            Subject::Generation,
        ] {
            assert_eq!(keys.parse(keys.key(&subject).as_bytes()), Some(subject));
        }
        for unknown in ["/hubspoke/registry/", "/hubspoke/registry/x/y/z", "/hubspoke/visit", "\u{ff}"] {
            assert_eq!(keys.parse(unknown.as_bytes()), None, "{unknown}");
        }
    }
}
