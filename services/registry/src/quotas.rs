//! What one member's token may add to the catalogue, so that none fills it: instances under its names, and names that only
//! its instances require.

use std::collections::{HashMap, HashSet};

use hubspoke_protocol::{EVERY_SERVICE, ServiceInfo};
use parking_lot::Mutex;

use crate::config::Limits;

/// Why a member's registration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OverQuota {
    #[error(
        "the member {token} has {max} instances already, which is the limit (registry.limits.member_instances)"
    )]
    Instances { token: String, max: usize },
    #[error(
        "instances of the member {token} require {max} services that nobody offers, which is the limit \
         (registry.limits.member_required)"
    )]
    Required { token: String, max: usize },
}

/// What is known of a name, and of the instances under it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct KnownService {
    /// Its instances.
    pub(crate) instances: usize,
    /// Whether the catalogue has the name: it has instances, had some recently, or is required.
    pub(crate) is_known: bool,
}

/// The quotas of all members' tokens.
#[derive(Debug)]
pub(crate) struct Quotas {
    instances: usize,
    required: usize,
    /// By token: the names that its instances required while nobody offered them.
    unoffered: Mutex<HashMap<String, HashSet<String>>>,
}

impl Quotas {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            instances: limits.member_instances,
            required: limits.member_required,
            unoffered: Mutex::default(),
        }
    }

    /// Checks a registration that changes the catalogue. `names` are those that the token is for, `is_new` is whether
    /// the instance is a further one.
    ///
    /// # Errors
    /// [`OverQuota`].
    pub(crate) fn check(
        &self,
        token: &str,
        names: &[String],
        info: &ServiceInfo,
        is_new: bool,
        known: impl Fn(&str) -> KnownService,
    ) -> Result<(), OverQuota> {
        let max = self.instances;
        if is_new && names.iter().map(|name| known(name).instances).sum::<usize>() >= max {
            return Err(OverQuota::Instances { token: token.to_owned(), max });
        }
        let is_unoffered = |name: &&String| *name != EVERY_SERVICE && known(name).instances == 0;
        let unoffered: Vec<_> = info.required_services.iter().filter(is_unoffered).collect();
        if unoffered.is_empty() {
            return Ok(());
        }
        let mut by_token = self.unoffered.lock();
        let counted = by_token.entry(token.to_owned()).or_default();
        counted.extend(unoffered.iter().map(|name| (*name).clone()));
        let max = self.required;
        if counted.len() > max {
            // Some may be offered now, and others may not be required any more.
            counted.retain(|name| {
                let service = known(name);
                service.instances == 0 && service.is_known || unoffered.contains(&name)
            });
        }
        if counted.len() <= max {
            return Ok(());
        }
        // Those of this registration that the catalogue does not have stay out of it.
        counted.retain(|name| known(name).is_known);
        Err(OverQuota::Required { token: token.to_owned(), max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas() -> Quotas {
        Quotas::new(&Limits { member_instances: 2, member_required: 3, ..Limits::default() })
    }

    fn info(required: &[&str]) -> ServiceInfo {
        let required_services = required.iter().map(|name| (*name).to_owned()).collect();
        ServiceInfo { required_services, ..ServiceInfo::new("shop", "127.0.0.1:1") }
    }

    fn offered(instances: usize) -> KnownService {
        KnownService { instances, is_known: true }
    }

    #[test]
    fn a_token_has_so_many_instances_under_all_its_names() {
        let names = ["shop".to_owned(), "cart".to_owned()];
        let check = |each, is_new| quotas().check("t", &names, &info(&[]), is_new, |_| offered(each));
        assert_eq!(check(0, true), Ok(()));
        assert_eq!(check(1, false), Ok(()), "a replacement");
        assert_eq!(check(1, true), Err(OverQuota::Instances { token: "t".into(), max: 2 }));
    }

    #[test]
    fn names_that_nobody_offers_are_counted_until_the_catalogue_forgets_them() {
        let quotas = quotas();
        let known = Mutex::new(HashSet::new());
        let require = |token: &str, required: &[&str]| {
            let look_up = |name: &str| match name {
                "log" => offered(5),
                name => KnownService { instances: 0, is_known: known.lock().contains(name) },
            };
            let checked = quotas.check(token, &[], &info(required), false, look_up);
            if checked.is_ok() {
                known.lock().extend(required.iter().map(|name| (*name).to_owned()));
            }
            checked.is_ok()
        };
        assert!(require("t", &["a", "b", "log", "*"]));
        assert!(require("t", &["b", "c"]));
        assert!(!require("t", &["d"]));
        assert!(require("t", &["a", "c"]), "again");
        assert!(require("other", &["d", "e", "f"]), "another token");
        assert!(!require("t", &["d"]), "required by another, but by this one, too");
        known.lock().remove("a");
        assert!(require("t", &["d"]), "a is not required any more");
        assert!(!require("t", &["a"]));
    }
}
