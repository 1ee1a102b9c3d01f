//! The registry's settings: the table `[registry]`, next to the keys that every process has there (`url`, `token`,
//! `token_file`). For the registry itself, the token is the one that it requires.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use hubspoke_chassis::config::{Table, networks};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The registry's own settings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Settings {
    /// Networks (CIDR) whose addresses may register. Empty: any address, including host names.
    #[serde(deserialize_with = "networks")]
    pub allow_addrs: Vec<IpNet>,
    /// Where the catalogue is: in memory, or in etcd, so that several registries share it. See the table `[etcd]`.
    pub store: StoreKind,
    /// How to reach etcd. Used with `store = "etcd"` only.
    pub etcd: hubspoke_etcd::Config,
    /// Folder of the snapshot file. Unset: after a restart, members come back by renewal. With etcd it is a copy: what an
    /// etcd without a catalogue begins with, and the way back to memory.
    pub data_dir: Option<PathBuf>,
    /// How long an instance restored from the snapshot file may stay without answering.
    #[serde(with = "humantime_serde")]
    pub restore_grace: Duration,
    /// Heartbeats.
    pub heartbeat: HeartbeatSettings,
    /// Pushes to dependents.
    pub push: PushSettings,
    /// Self-protection.
    pub protection: ProtectionSettings,
    /// Flap damping.
    pub flap: FlapSettings,
    /// Limits.
    pub limits: Limits,
    /// Removed instances and past changes.
    pub history: HistorySettings,
}

/// Where the catalogue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// In this process.
    #[default]
    Memory,
    /// In etcd.
    Etcd,
}

/// Heartbeats.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct HeartbeatSettings {
    /// Time between two heartbeats to one instance, less up to a twentieth.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Consecutive missed heartbeats after which an instance is removed.
    pub attempts: u32,
    /// Pause after a missed heartbeat.
    #[serde(with = "humantime_serde")]
    pub gap: Duration,
    /// Time within which a heartbeat must be answered.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// How long a removed instance that registered without an `Id` is still checked, to come back when it answers.
    /// Zero: not at all.
    #[serde(with = "humantime_serde")]
    pub recheck: Duration,
    /// Most heartbeats in flight at once.
    pub concurrency: usize,
    /// Most idle connections kept between heartbeats; at most half of the file descriptors are used for them.
    pub keep_open: usize,
}

/// Pushes to dependents.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct PushSettings {
    /// Changes within this time are pushed together.
    #[serde(with = "humantime_serde")]
    pub coalesce: Duration,
    /// Time within which a push must be acknowledged.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Longest pause before a failed push is retried.
    #[serde(with = "humantime_serde")]
    pub backoff_max: Duration,
    /// Most pushes in flight at once.
    pub concurrency: usize,
    /// Longest time that the reply to a deregistration waits for the acknowledgements of dependents.
    #[serde(with = "humantime_serde")]
    pub deregister_wait: Duration,
}

/// Self-protection: when the registry suspects its own network rather than the instances.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ProtectionSettings {
    /// Whether removals may be held back.
    pub enabled: bool,
    /// Share of all instances, 0 to 1, that must fail within one interval to trigger it.
    pub share: f64,
    /// Fewest instances in the catalogue for it to apply.
    pub min_instances: usize,
    /// Longest time that removals are held back.
    #[serde(with = "humantime_serde")]
    pub max: Duration,
}

/// Flap damping: when an instance that keeps being removed or replaced becomes suspect.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct FlapSettings {
    /// Removals and replacements allowed within `window`.
    pub limit: usize,
    /// The time over which they are counted.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// How long an instance that exceeds the limit is suspect. Zero turns flap damping off.
    #[serde(with = "humantime_serde")]
    pub hold: Duration,
}

/// Limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Limits {
    /// Longest request body.
    pub body: ByteSize,
    /// Most services in the catalogue, including those that are only required.
    pub services: usize,
    /// Most instances in the catalogue.
    pub instances: usize,
    /// Most memory that all registrations together may take up, those in lists and the history of changes included.
    pub memory: ByteSize,
    /// Most names that one instance may require.
    pub required: usize,
    /// Most instances that one member's token may have in the catalogue, under all its names.
    pub member_instances: usize,
    /// Most names that the instances of one member's token may require without anybody offering them.
    pub member_required: usize,
    /// Longest `Meta` of one instance: the bytes of all its keys and values.
    pub meta: ByteSize,
    /// Registrations per second that change something; renewals are not counted. 0: no limit.
    pub registrations_per_second: u32,
    /// Most watch streams at once.
    pub watchers: usize,
}

/// Removed instances and past changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct HistorySettings {
    /// How long a removed instance is shown.
    #[serde(with = "humantime_serde")]
    pub removed_for: Duration,
    /// Most removed instances shown.
    pub removed_max: usize,
    /// Changes kept for watchers that reconnect.
    pub changes: usize,
}

impl Settings {
    /// The defaults of `hub up`. What it restores are mostly services of its own, which are gone if it was killed, so
    /// those that don't answer are kept for less time.
    #[must_use]
    pub fn in_one_process() -> Self {
        Self { restore_grace: Duration::from_secs(5), ..Self::default() }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allow_addrs: Vec::new(),
            data_dir: None,
            store: StoreKind::Memory,
            etcd: hubspoke_etcd::Config::default(),
            restore_grace: Duration::from_secs(30),
            heartbeat: HeartbeatSettings::default(),
            push: PushSettings::default(),
            protection: ProtectionSettings::default(),
            flap: FlapSettings::default(),
            limits: Limits::default(),
            history: HistorySettings::default(),
        }
    }
}

impl Default for HeartbeatSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            attempts: 3,
            gap: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            recheck: Duration::from_secs(600),
            concurrency: 1024,
            keep_open: 20_000,
        }
    }
}

impl Default for PushSettings {
    fn default() -> Self {
        Self {
            coalesce: Duration::from_millis(50),
            timeout: Duration::from_secs(2),
            backoff_max: Duration::from_secs(5),
            concurrency: 2048,
            deregister_wait: Duration::from_secs(1),
        }
    }
}

impl Default for ProtectionSettings {
    fn default() -> Self {
        Self { enabled: true, share: 0.5, min_instances: 10, max: Duration::from_secs(120) }
    }
}

impl Default for FlapSettings {
    fn default() -> Self {
        Self { limit: 3, window: Duration::from_secs(60), hold: Duration::from_secs(60) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: ByteSize::kib(64),
            services: 20_000,
            instances: 100_000,
            memory: ByteSize::mib(96),
            required: 256,
            member_instances: 2000,
            member_required: 500,
            meta: ByteSize::kib(4),
            registrations_per_second: 10_000,
            watchers: 256,
        }
    }
}

impl Default for HistorySettings {
    fn default() -> Self {
        Self { removed_for: Duration::from_secs(600), removed_max: 1000, changes: 4096 }
    }
}

impl Table for Settings {
    const BESIDE: &'static [&'static str] = &["etcd"];

    fn check(&self) -> Result<(), (String, String)> {
        let etcd = match self.store {
            StoreKind::Memory => self.etcd.check(),
            StoreKind::Etcd => self.etcd.check_in_use(),
        };
        etcd.map_err(|invalid| (format!("etcd.{}", invalid.key), invalid.reason))?;
        let Self { heartbeat, push, limits, .. } = self;
        let durations = [
            ("heartbeat.interval", heartbeat.interval, true),
            ("heartbeat.gap", heartbeat.gap, false),
            ("heartbeat.timeout", heartbeat.timeout, true),
            ("heartbeat.recheck", heartbeat.recheck, false),
            ("push.coalesce", push.coalesce, false),
            ("push.timeout", push.timeout, true),
            ("push.backoff_max", push.backoff_max, false),
            ("push.deregister_wait", push.deregister_wait, false),
        ];
        let counts = [
            ("heartbeat.attempts", heartbeat.attempts as usize),
            ("heartbeat.concurrency", heartbeat.concurrency),
            ("push.concurrency", push.concurrency),
            ("limits.services", limits.services),
            ("limits.instances", limits.instances),
            ("limits.member_instances", limits.member_instances),
            ("limits.member_required", limits.member_required),
        ];
        let zero = durations.iter().find(|(_, span, positive)| *positive && span.is_zero());
        // Longer ones are useless, and very long ones overflow when they are added to a time.
        let too_long = durations.iter().find(|(_, span, _)| *span > DAY);
        let error = if let Some((key, ..)) = zero {
            (*key, "must be greater than 0")
        } else if let Some((key, ..)) = too_long {
            (*key, "must be at most a day")
        } else if let Some((key, _)) = counts.iter().find(|(_, count)| *count == 0) {
            (*key, "must be at least 1")
        } else if !(0.0..=1.0).contains(&self.protection.share) {
            ("protection.share", "must be from 0 to 1")
        } else {
            return Ok(());
        };
        Err((error.0.to_owned(), error.1.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use hubspoke_chassis::config::{ConfigSource, Layers};

    use super::*;

    /// The file unchanged, and with every commented-out key uncommented.
    #[test]
    fn the_shipped_file_shows_the_defaults() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/registry.toml");
        let text = std::fs::read_to_string(path).unwrap();
        let key = |line: &str| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).map(str::to_owned);
        let optional =
            ["token", "token_file", "tokens_file", "data_dir", "user", "password_file", "ca", "cert", "key"];
        let shown = text.lines().map(|line| {
            let shown =
                key(line).filter(|shown| !optional.iter().any(|name| shown.starts_with(&format!("{name} "))));
            shown.unwrap_or_else(|| line.to_owned())
        });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("shown.toml");
        std::fs::write(&file, shown.collect::<Vec<_>>().join("\n")).unwrap();
        let settings = |file: PathBuf| {
            let source = ConfigSource { file: Some(file), ..ConfigSource::default() };
            let (config, _) = Layers::config::<Settings>(&crate::PROCESS, &source).unwrap();
            format!("{:?}", config.own)
        };
        let defaults = format!("{:?}", Settings::default());
        assert_eq!(settings(path.into()), defaults);
        assert_eq!(settings(file), defaults);
        assert!(text.lines().filter_map(key).count() > 30, "the file shows its keys");
    }

    #[test]
    fn values_out_of_range_are_rejected() {
        let wrong = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.check().unwrap_err().0
        };
        assert_eq!(wrong(|s| s.heartbeat.interval = Duration::ZERO), "heartbeat.interval");
        assert_eq!(wrong(|s| s.heartbeat.interval = Duration::MAX), "heartbeat.interval");
        assert_eq!(wrong(|s| s.push.coalesce = DAY + Duration::from_nanos(1)), "push.coalesce");
        assert_eq!(wrong(|s| s.heartbeat.attempts = 0), "heartbeat.attempts");
        assert_eq!(wrong(|s| s.protection.share = 1.5), "protection.share");
        assert_eq!(wrong(|s| s.store = StoreKind::Etcd), "etcd.endpoints");
        assert_eq!(wrong(|s| s.etcd.prefix = "x".to_owned()), "etcd.prefix");
    }
}
