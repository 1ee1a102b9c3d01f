//! Changes as transactions. Each is guarded, so that it never undoes what somebody else has written meanwhile. Pure.

use hubspoke_etcd::{Compare, Op, Txn};

use super::drains::DrainUpkeep;
use super::keys::{Keys, Subject};
use super::record::{RegistrationRecord, RemovalRecord, StateRecord, write};
use crate::catalog::{InstanceKey, NewRegistration, NewRemoval, NewState, SavedCatalog, SavedInstance};
use crate::view::WallClock;

/// The registration in whose place a change comes: the one that was written at `over`, or none.
fn guard(keys: &Keys, key: &InstanceKey, over: u64) -> Compare {
    let instance = keys.key(&Subject::Instance(key.clone()));
    match i64::try_from(over) {
        Ok(revision) if revision > 0 => Compare::mod_revision(instance, revision),
        _ => Compare::absent(instance),
    }
}

/// Reads what was written last about an instance, to know which revision to wait for.
pub(super) fn look(keys: &Keys, key: &InstanceKey) -> Txn {
    Txn::new()
        .then(Op::get(keys.key(&Subject::Instance(key.clone()))))
        .then(Op::get(keys.key(&Subject::Removed(key.clone()))))
}

/// The same if the guard does not hold.
fn or_look(keys: &Keys, key: &InstanceKey, txn: Txn) -> Txn {
    txn.or_else(Op::get(keys.key(&Subject::Instance(key.clone()))))
        .or_else(Op::get(keys.key(&Subject::Removed(key.clone()))))
}

pub(super) fn register(keys: &Keys, new: &NewRegistration, clock: WallClock) -> Txn {
    let key = InstanceKey::new(&new.info.name, &new.info.addr);
    let value = write(&RegistrationRecord::new(new, clock));
    let txn = Txn::new()
        .when(guard(keys, &key, new.over))
        .then(Op::put(keys.key(&Subject::Instance(key.clone())), value))
        .then(Op::delete(keys.key(&Subject::Removed(key.clone()))));
    let txn = or_look(keys, &key, txn);
    if new.same_start { txn } else { txn.then(Op::delete(keys.key(&Subject::State(key)))) }
}

/// `by` is the registry that removes an instance by its own judgement, with its lease.
pub(super) fn remove(keys: &Keys, new: &NewRemoval, by: Option<(&Subject, i64)>, clock: WallClock) -> Txn {
    let key = &new.key;
    let txn = Txn::new().when(guard(keys, key, new.over));
    let txn = match by {
        Some((registry, lease)) => txn.when(Compare::lease(keys.key(registry), lease)),
        None => txn,
    };
    let txn = or_look(keys, key, txn);
    txn.then(Op::put(keys.key(&Subject::Removed(key.clone())), write(&RemovalRecord::new(new, clock))))
        .then(Op::delete(keys.key(&Subject::Instance(key.clone()))))
        .then(Op::delete(keys.key(&Subject::State(key.clone()))))
}

pub(super) fn set_state(keys: &Keys, new: &NewState) -> Txn {
    let state = keys.key(&Subject::State(new.key.clone()));
    let txn = Txn::new().when(guard(keys, &new.key, new.of));
    match new.state {
        hubspoke_protocol::InstanceState::Passing => txn.then(Op::delete(state)),
        _ => txn.then(Op::put(state, write(&StateRecord::new(new)))),
    }
}

pub(super) fn drain(keys: &Keys, key: &InstanceKey, on: bool) -> Txn {
    let drain = keys.key(&Subject::Drain(key.clone()));
    Txn::new().then(if on { Op::put(drain, "") } else { Op::delete(drain) })
}

pub(super) fn set_protection(keys: &Keys, on: bool) -> Txn {
    Txn::new().then(Op::put(keys.key(&Subject::Protection), on.to_string()))
}

/// Writes the catalogue that another store had.
pub(super) fn import(keys: &Keys, saved: SavedCatalog, clock: WallClock) -> Vec<Txn> {
    let SavedCatalog { instances, drains, protection, .. } = saved;
    let mut txns: Vec<_> = protection.map(|on| set_protection(keys, on)).into_iter().collect();
    txns.extend(drains.iter().map(|(key, _)| drain(keys, key, true)));
    for SavedInstance { info, registered, drained } in instances {
        if drained {
            txns.push(drain(keys, &InstanceKey::new(&info.name, &info.addr), true));
        }
        let new =
            NewRegistration { info, warnings: None, registered, returned: false, over: 0, same_start: false };
        txns.push(register(keys, &new, clock));
    }
    txns
}

/// The upkeep of a drain, unless somebody has changed it.
pub(super) fn keep_up(keys: &Keys, upkeep: DrainUpkeep) -> Txn {
    let DrainUpkeep { key, written_at, value } = upkeep;
    let drain = keys.key(&Subject::Drain(key));
    let txn = Txn::new().when(Compare::mod_revision(&drain, written_at));
    txn.then(value.map_or_else(|| Op::delete(&drain), |value| Op::put(&drain, value)))
}

/// Forgets a removal, unless the instance was removed once more.
pub(super) fn forget(keys: &Keys, key: &InstanceKey, written_at: i64) -> Txn {
    let removed = keys.key(&Subject::Removed(key.clone()));
    Txn::new().when(Compare::mod_revision(&removed, written_at)).then(Op::delete(&removed))
}
