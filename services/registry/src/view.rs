//! The catalogue in the form shown to people and tools: wall-clock times, no push keys.

use hubspoke_protocol::{
    CatalogView, InstanceState, InstanceView, ProtectionView, Reason, RegistriesView, RegistryView,
    ServiceInfo,
};
use jiff::{SignedDuration, Timestamp};

use crate::catalog::{HistoryEntry, InstanceRecord, ProtectionStatus, Time};
use crate::cluster::{Cluster, EtcdStatus};
use crate::shared::SharedCatalog;

/// Converts between the catalogue's time and wall-clock time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WallClock {
    now: Time,
    wall: Timestamp,
}

impl WallClock {
    pub(crate) fn new(now: Time) -> Self {
        Self { now, wall: Timestamp::now() }
    }

    /// The wall-clock time of a catalogue time.
    pub(crate) fn timestamp(self, at: Time) -> Timestamp {
        let offset = SignedDuration::from_millis(at.as_millis().saturating_sub(self.now.as_millis()));
        self.wall.checked_add(offset).unwrap_or(self.wall)
    }

    /// The catalogue time of a wall-clock time. Never in the future, even if the clock has been set back.
    pub(crate) fn time(self, at: Timestamp) -> Time {
        let ago = i64::try_from(self.wall.duration_since(at).as_millis()).unwrap_or(0).max(0);
        Time::from_millis(self.now.as_millis().saturating_sub(ago))
    }

    /// The wall-clock time of a catalogue time, as text.
    pub(crate) fn format(self, at: Time) -> String {
        format!("{:.3}", self.timestamp(at))
    }
}

/// All services, or those in `only`, with their instances. For all of them, hold a
/// [view permit](SharedCatalog::view_permit).
pub(crate) fn catalog(shared: &SharedCatalog, only: Option<&[String]>) -> CatalogView {
    let (revision, snapshot, protection, now) = shared
        .with(|catalog, now| (catalog.revision(), catalog.snapshot(now, only), catalog.protection(now), now));
    let clock = WallClock::new(now);
    let services = snapshot.into_iter().map(|(name, list)| {
        (name.to_string(), list.iter().map(|(record, removed)| instance(record, *removed, clock)).collect())
    });
    CatalogView {
        revision: shared.revision_of(revision),
        services: services.collect(),
        protection: Some(protection_view(protection, clock)),
        registries: shared.cluster().map(|cluster| registries(shared, cluster)),
    }
}

/// The registries that share the catalogue.
pub(crate) fn registries(shared: &SharedCatalog, cluster: &Cluster) -> RegistriesView {
    let shares = shared.with(|catalog, _| catalog.shares());
    let EtcdStatus { since, error } = cluster.status.etcd();
    let now = Timestamp::now();
    let since = SignedDuration::try_from(since.elapsed()).ok().and_then(|ago| now.checked_sub(ago).ok());
    let mut registries: Vec<_> = cluster
        .status
        .registries()
        .iter()
        .map(|(id, record)| RegistryView {
            id: id.to_string(),
            addr: record.addr.clone(),
            version: record.version.clone(),
            asked: *id == cluster.own,
            instances: shares.get(id).copied().unwrap_or(0),
        })
        .collect();
    registries.sort_by(|a, b| a.addr.cmp(&b.addr));
    RegistriesView {
        etcd_up: error.is_none(),
        etcd_since: format!("{:.3}", since.unwrap_or(now)),
        etcd_error: error,
        registries,
    }
}

/// The state of self-protection.
pub(crate) fn protection(shared: &SharedCatalog) -> ProtectionView {
    shared.with(|catalog, now| protection_view(catalog.protection(now), WallClock::new(now)))
}

fn protection_view(protection: ProtectionStatus, clock: WallClock) -> ProtectionView {
    let ProtectionStatus { enabled, until, held_back } = protection;
    ProtectionView { enabled, until: until.map(|at| clock.format(at)), held_back }
}

/// One instance.
pub(crate) fn instance(record: &InstanceRecord, removed: bool, clock: WallClock) -> InstanceView {
    let reason = |entry: &HistoryEntry| {
        let HistoryEntry { at, kind, detail } = entry;
        Reason { at: clock.format(*at), kind: *kind, detail: detail.to_string() }
    };
    InstanceView {
        info: ServiceInfo { id: Some(record.info.instance_id().into_owned()), ..record.info.public() },
        state: if removed { InstanceState::Removed } else { record.state() },
        registered: clock.format(record.registered),
        last_heartbeat: record.last_heartbeat.map(|at| clock.format(at)),
        load: record.load,
        warnings: record.warnings.as_deref().unwrap_or_default().to_vec(),
        reasons: record.reasons.iter().map(reason).collect(),
    }
}
