//! The registry's settings: the table `[registry]`, beside the keys that every process has there (`url`, `token`,
//! `token_file`). A token set for the registry itself is the one that it asks its members for.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use hubspoke_chassis::config::{Table, list};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::catalog::{FlapPolicy, Policy, ProtectionPolicy};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The registry's own settings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Networks whose addresses may register (CIDR). Empty: any address, names included.
    #[serde(deserialize_with = "list")]
    pub allow_addrs: Vec<String>,
    /// Folder of the snapshot file. Unset: after a restart members come back by renewal.
    pub data_dir: Option<PathBuf>,
    /// An instance known from the snapshot file only is kept for this long without a sign of life.
    #[serde(with = "humantime_serde")]
    pub restore_grace: Duration,
    /// Heartbeats.
    pub heartbeat: Heartbeat,
    /// Telling dependents of changes.
    pub push: Push,
    /// Self-protection.
    pub protection: Protection,
    /// Flap damping.
    pub flap: Flap,
    /// Limits.
    pub limits: Limits,
    /// What is remembered of removed instances.
    pub history: History,
}

/// Heartbeats.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Heartbeat {
    /// Time between two heartbeats of one instance, or up to a twentieth less.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Failed heartbeats in a row after which an instance is removed.
    pub attempts: u32,
    /// Pause after a failed heartbeat.
    #[serde(with = "humantime_serde")]
    pub gap: Duration,
    /// An answer must be here after this long.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Heartbeats under way at once.
    pub concurrency: usize,
    /// Connections kept open between heartbeats; at most half of the file descriptors are used for them.
    pub keep_open: usize,
}

/// Telling dependents of changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Push {
    /// Changes within this time go out together.
    #[serde(with = "humantime_serde")]
    pub coalesce: Duration,
    /// A dependent must acknowledge within this time.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Longest pause before a push that failed is tried again.
    #[serde(with = "humantime_serde")]
    pub backoff_max: Duration,
    /// Pushes under way at once.
    pub concurrency: usize,
    /// A deregistration is answered after this long, even where not all dependents have acknowledged.
    #[serde(with = "humantime_serde")]
    pub deregister_wait: Duration,
}

/// When the registry suspects itself rather than the instances.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Protection {
    /// Whether it ever does.
    pub enabled: bool,
    /// More than this share of all instances fails within one interval …
    pub share: f64,
    /// … of at least so many instances.
    pub min_instances: usize,
    /// For how long at most removals are held back.
    #[serde(with = "humantime_serde")]
    pub max: Duration,
}

/// When an instance that comes and goes is trusted less.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Flap {
    /// More than so many removals or replacements …
    pub limit: usize,
    /// … within this time …
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// … keep it suspect for this long. Zero: never.
    #[serde(with = "humantime_serde")]
    pub hold: Duration,
}

/// Limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Longest body of a request.
    pub body: ByteSize,
    /// Services in the catalogue, required ones included.
    pub services: usize,
    /// Instances in the catalogue.
    pub instances: usize,
    /// Names that one instance may require.
    pub required: usize,
    /// All keys and values of `Meta` together.
    pub meta: ByteSize,
    /// Registrations per second that change something; renewals are free. 0: any.
    pub registrations_per_second: u32,
    /// Those who watch at once.
    pub watchers: usize,
}

/// What is remembered of removed instances.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct History {
    /// For how long a removed instance is shown.
    #[serde(with = "humantime_serde")]
    pub removed_for: Duration,
    /// How many are shown at most.
    pub removed_max: usize,
    /// Changes kept for watchers that come back.
    pub changes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allow_addrs: Vec::new(),
            data_dir: None,
            restore_grace: Duration::from_secs(30),
            heartbeat: Heartbeat::default(),
            push: Push::default(),
            protection: Protection::default(),
            flap: Flap::default(),
            limits: Limits::default(),
            history: History::default(),
        }
    }
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            attempts: 3,
            gap: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            concurrency: 1024,
            keep_open: 20_000,
        }
    }
}

impl Default for Push {
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

impl Default for Protection {
    fn default() -> Self {
        Self { enabled: true, share: 0.5, min_instances: 10, max: Duration::from_secs(120) }
    }
}

impl Default for Flap {
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
            required: 256,
            meta: ByteSize::kib(4),
            registrations_per_second: 10_000,
            watchers: 256,
        }
    }
}

impl Default for History {
    fn default() -> Self {
        Self { removed_for: Duration::from_secs(600), removed_max: 1000, changes: 4096 }
    }
}

impl Table for Settings {
    fn check(&self) -> Result<(), (String, String)> {
        let positive = [
            ("heartbeat.interval", self.heartbeat.interval),
            ("heartbeat.timeout", self.heartbeat.timeout),
            ("push.timeout", self.push.timeout),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, span)| span.is_zero()) {
            return Err(((*key).to_owned(), "must be longer than nothing".to_owned()));
        }
        // Longer ones mean nothing, and can't be added to a moment in the end.
        let bounded = [
            ("heartbeat.interval", self.heartbeat.interval),
            ("heartbeat.gap", self.heartbeat.gap),
            ("heartbeat.timeout", self.heartbeat.timeout),
            ("push.coalesce", self.push.coalesce),
            ("push.timeout", self.push.timeout),
            ("push.backoff_max", self.push.backoff_max),
            ("push.deregister_wait", self.push.deregister_wait),
        ];
        if let Some((key, _)) = bounded.iter().find(|(_, span)| *span > DAY) {
            return Err(((*key).to_owned(), "must be at most a day".to_owned()));
        }
        let at_least_one = [
            ("heartbeat.attempts", self.heartbeat.attempts as usize),
            ("heartbeat.concurrency", self.heartbeat.concurrency),
            ("push.concurrency", self.push.concurrency),
            ("limits.services", self.limits.services),
            ("limits.instances", self.limits.instances),
        ];
        if let Some((key, _)) = at_least_one.iter().find(|(_, number)| *number == 0) {
            return Err(((*key).to_owned(), "must be at least 1".to_owned()));
        }
        if !(0.0..=1.0).contains(&self.protection.share) {
            return Err(("protection.share".to_owned(), "must be from 0 to 1".to_owned()));
        }
        self.networks().map(drop).map_err(|why| ("allow_addrs".to_owned(), why))
    }
}

impl Settings {
    /// `allow_addrs`, read.
    ///
    /// # Errors
    /// The first that is no network.
    pub fn networks(&self) -> Result<Vec<IpNet>, String> {
        let network = |text: &String| {
            let single = || text.parse::<IpAddr>().map(IpNet::from).ok();
            text.parse().ok().or_else(single).ok_or_else(|| format!("{text:?} is no network: 10.0.0.0/8"))
        };
        self.allow_addrs.iter().map(network).collect()
    }

    /// What the catalogue decides by.
    pub fn policy(&self) -> Policy {
        Policy {
            interval: self.heartbeat.interval,
            attempts: self.heartbeat.attempts,
            max_instances: self.limits.instances,
            max_services: self.limits.services,
            removed_for: self.history.removed_for,
            removed_max: self.history.removed_max,
            restore_grace: self.restore_grace,
            protection: ProtectionPolicy {
                enabled: self.protection.enabled,
                share: self.protection.share,
                min_instances: self.protection.min_instances,
                max: self.protection.max,
            },
            flap: FlapPolicy { limit: self.flap.limit, window: self.flap.window, hold: self.flap.hold },
        }
    }
}

#[cfg(test)]
mod tests {
    use hubspoke_chassis::config::{Layers, Source};

    use super::*;

    /// The file as it is, and with every key that it shows uncommented.
    #[test]
    fn the_shipped_file_shows_the_defaults() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/registry.toml");
        let text = std::fs::read_to_string(path).unwrap();
        let key = |line: &str| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).map(str::to_owned);
        let optional = ["token", "token_file", "data_dir"];
        let shown = text.lines().map(|line| {
            let shown =
                key(line).filter(|shown| !optional.iter().any(|name| shown.starts_with(&format!("{name} "))));
            shown.unwrap_or_else(|| line.to_owned())
        });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("shown.toml");
        std::fs::write(&file, shown.collect::<Vec<_>>().join("\n")).unwrap();
        let settings = |file: PathBuf| {
            let source = Source { file: Some(file), ..Source::default() };
            let (config, _) = Layers::config::<Settings>(&crate::PROCESS, &source).unwrap();
            format!("{:?}", config.own)
        };
        let defaults = format!("{:?}", Settings::default());
        assert_eq!(settings(path.into()), defaults);
        assert_eq!(settings(file), defaults);
        assert!(text.lines().filter_map(key).count() > 30, "the file shows its keys");
    }

    #[test]
    fn what_types_cannot_say_is_checked() {
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
        assert_eq!(wrong(|s| s.allow_addrs = vec!["here".into()]), "allow_addrs");
        let networks =
            Settings { allow_addrs: vec!["10.0.0.0/8".into(), "::1".into()], ..Settings::default() };
        assert_eq!(networks.networks().unwrap().len(), 2);
    }
}
