//! What an instance is asked, how often, and for how long: `/heart-beat`, unless its `Meta` names something that a program
//! can answer which knows nothing of Hubspoke. Pure.

use std::time::Duration;

use http::Uri;
use hubspoke_protocol::ServiceInfo;

/// A path: 2xx and 3xx are answers.
const PATH: &str = "check.path";
/// `true`: a connection is an answer.
const TCP: &str = "check.tcp";
/// Instead of `heartbeat.interval` and `heartbeat.timeout`.
const INTERVAL: &str = "check.interval";
const TIMEOUT: &str = "check.timeout";
/// Longest path, in bytes.
const MAX_PATH: usize = 256;
/// What members may choose; the limit is the nearest.
const INTERVALS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(300)];
const TIMEOUTS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Check {
    /// `/heart-beat`, which is answered with 200.
    Heartbeat,
    /// This path.
    Path(Uri),
    /// A connection.
    Tcp,
}

impl Check {
    /// That of an instance. An invalid one is `/heart-beat`.
    pub(super) fn of(info: &ServiceInfo) -> Self {
        if let Some(path) = info.meta.get(PATH)
            && path.starts_with('/')
            && path.len() <= MAX_PATH
            && let Ok(uri) = Uri::try_from(path.as_str())
        {
            return Self::Path(uri);
        }
        match info.meta.get(TCP) {
            Some(tcp) if tcp == "true" => Self::Tcp,
            _ => Self::Heartbeat,
        }
    }
}

/// The instance's own interval, if it has one.
pub(super) fn interval(info: &ServiceInfo) -> Option<Duration> {
    own(info, INTERVAL, INTERVALS)
}

/// The instance's own timeout, if it has one.
pub(super) fn timeout(info: &ServiceInfo) -> Option<Duration> {
    own(info, TIMEOUT, TIMEOUTS)
}

fn own(info: &ServiceInfo, key: &str, [least, most]: [Duration; 2]) -> Option<Duration> {
    let time = humantime::parse_duration(info.meta.get(key)?).ok()?;
    Some(time.clamp(least, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(meta: &[(&str, &str)]) -> ServiceInfo {
        let meta = meta.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        ServiceInfo { meta, ..ServiceInfo::new("shop", "127.0.0.1:9") }
    }

    #[test]
    fn meta_chooses_the_check() {
        let path = |path: &'static str| Check::Path(Uri::from_static(path));
        let long = "/x".repeat(200);
        for (meta, check) in [
            (&[][..], Check::Heartbeat),
            (&[("check.path", "/up?full=1")], path("/up?full=1")),
            (&[("check.tcp", "true")], Check::Tcp),
            (&[("check.path", "/up"), ("check.tcp", "true")], path("/up")),
            (&[("check.path", "up")], Check::Heartbeat),
            (&[("check.path", "/a b")], Check::Heartbeat),
            (&[("check.path", &*long)], Check::Heartbeat),
            (&[("check.tcp", "yes")], Check::Heartbeat),
        ] {
            assert_eq!(Check::of(&info(meta)), check, "{meta:?}");
        }
    }

    #[test]
    fn times_are_bounded() {
        for (text, interval_is, timeout_is) in [
            ("2s", Some(2_000), Some(2_000)),
            ("1ms", Some(1_000), Some(100)),
            ("1day", Some(300_000), Some(10_000)),
            ("soon", None, None),
        ] {
            let info = info(&[("check.interval", text), ("check.timeout", text)]);
            assert_eq!(interval(&info).map(|time| time.as_millis()), interval_is, "{text}");
            assert_eq!(timeout(&info).map(|time| time.as_millis()), timeout_is, "{text}");
        }
        assert_eq!(interval(&info(&[])), None);
    }
}
