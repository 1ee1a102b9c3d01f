//! The change that a call asks of the store, if there is one. Reads the catalogue only; the call's own rules are
//! the same as without a store.

use std::sync::Arc;

use hubspoke_protocol::{ReasonKind, ServiceInfo};

use super::event::{Initiator, Refusal};
use super::instance::Warnings;
use super::key::InstanceKey;
use super::proposal::{NewRegistration, NewRemoval};
use super::state::Catalog;
use super::time::Time;

impl Catalog {
    /// The change that the store must take for a registration; `None` if the catalogue has it already.
    ///
    /// # Errors
    /// [`Refusal`] if there is no room.
    pub(crate) fn plan_registration(
        &self,
        now: Time,
        info: &ServiceInfo,
        warnings: &Warnings,
    ) -> Result<Option<NewRegistration>, Refusal> {
        let new = |registered, over, same_start| NewRegistration {
            info: Arc::new(info.clone()),
            warnings: warnings.clone(),
            registered,
            returned: false,
            over,
            same_start,
        };
        match self.get(&InstanceKey::new(&info.name, &info.addr)) {
            Some(known) if **known.info == *info => Ok(None),
            Some(known) => {
                self.check_content(info)?;
                let same_start = known.info.id() == info.id();
                let registered = if same_start { known.registered } else { now };
                Ok(Some(new(registered, known.stored, same_start)))
            }
            None => {
                self.check_room(info)?;
                Ok(Some(new(now, 0, false)))
            }
        }
    }

    /// The change that the store must take for a deregistration; `None` if there is nothing to deregister.
    ///
    /// # Errors
    /// [`Refusal`] if another start is registered.
    pub(crate) fn plan_deregistration(
        &self,
        key: &InstanceKey,
        id: Option<&str>,
        by: &Initiator,
    ) -> Result<Option<NewRemoval>, Refusal> {
        let new = |info, registered, over| NewRemoval {
            key: key.clone(),
            info,
            registered,
            over,
            kind: ReasonKind::Deregistered,
            detail: by.detail().to_owned(),
        };
        let Some(instance) = self.get(key) else {
            let removal = self.services.get(&key.name).and_then(|service| service.removed.get(&key.addr));
            let removed = removal.and_then(|removal| self.removed.get(removal));
            let checked = removed.filter(|removed| removed.recheck_until.is_some());
            return Ok(checked
                .map(|removed| new(Arc::clone(&removed.instance.info), removed.instance.registered, 0)));
        };
        let current = instance.info.instance_id();
        if id.is_some_and(|id| id != instance.info.id() && id != current) {
            return Err(Refusal::OlderStart { key: key.clone(), current: current.into_owned() });
        }
        Ok(Some(new(Arc::clone(&instance.info), instance.registered, instance.stored)))
    }
}
