//! The catalogue as people and tools see it: times of day instead of the catalogue's own, no push keys.

use hubspoke_protocol::{CatalogView, InstanceState, InstanceView, ProtectionView, Reason};
use jiff::{SignedDuration, Timestamp};

use crate::catalog::{Instance, Protecting, Record, Time};
use crate::core::Core;

/// Turns the catalogue's moments into times of day.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wall {
    now: Time,
    day: Timestamp,
}

impl Wall {
    pub(crate) fn new(now: Time) -> Self {
        Self { now, day: Timestamp::now() }
    }

    /// The time of day of a moment.
    pub(crate) fn day(self, at: Time) -> Timestamp {
        let offset = SignedDuration::from_millis(at.as_millis().saturating_sub(self.now.as_millis()));
        self.day.checked_add(offset).unwrap_or(self.day)
    }

    /// The moment of a time of day; never later than now, whatever the wall clock was when it was written down.
    pub(crate) fn moment(self, day: Timestamp) -> Time {
        let ago = self.day.duration_since(day).as_millis();
        let ago = i64::try_from(ago).unwrap_or(0).max(0);
        Time::from_millis(self.now.as_millis().saturating_sub(ago))
    }

    fn show(self, at: Time) -> String {
        format!("{:.3}", self.day(at))
    }
}

/// Services with their instances: these, or all. Who wants all takes its [`Core::turn`].
pub(crate) fn catalog(core: &Core, only: Option<&[String]>) -> CatalogView {
    let (revision, all, protecting, now) = core
        .read(|catalog, now| (catalog.revision(), catalog.snapshot(now, only), catalog.protecting(now), now));
    let wall = Wall::new(now);
    let services = all.into_iter().map(|(name, list)| {
        let list = list.iter().map(|(seen, gone)| instance(seen, *gone, wall));
        (name.to_string(), list.collect())
    });
    let protection = Some(protecting_view(protecting, wall));
    CatalogView { revision: core.revision_of(revision), services: services.collect(), protection }
}

/// Self-protection as it stands.
pub(crate) fn protection(core: &Core) -> ProtectionView {
    let (protecting, now) = core.read(|catalog, now| (catalog.protecting(now), now));
    protecting_view(protecting, Wall::new(now))
}

fn protecting_view(protecting: Protecting, wall: Wall) -> ProtectionView {
    let Protecting { enabled, until, held_back } = protecting;
    ProtectionView { enabled, until: until.map(|at| wall.show(at)), held_back }
}

/// One instance.
pub(crate) fn instance(seen: &Instance, gone: bool, wall: Wall) -> InstanceView {
    InstanceView {
        info: seen.info.public(),
        state: if gone { InstanceState::Removed } else { seen.state() },
        registered: wall.show(seen.registered),
        last_heartbeat: seen.last_heartbeat.map(|at| wall.show(at)),
        load: seen.load,
        reasons: seen.reasons.iter().map(|record| reason(record, wall)).collect(),
    }
}

fn reason(record: &Record, wall: Wall) -> Reason {
    Reason { at: wall.show(record.at), kind: record.kind, detail: record.detail.to_string() }
}
