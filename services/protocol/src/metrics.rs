//! Where an instance's metrics are, as Prometheus is told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::service::ServiceInfo;

/// Key of `Meta` that declares metrics: `/PATH` on `ControlAddr` (or `Addr`), or `:PORT` or `:PORT/PATH` on the same
/// host. The host can't be chosen, so no registration points a Prometheus at somebody else.
pub const META_METRICS: &str = "metrics";
/// The path if none is declared.
pub const METRICS_PATH: &str = "/metrics";
/// Longest path, in bytes.
const MAX_PATH: usize = 200;

/// Targets in the form of Prometheus' `http_sd`, an element of `GET /prometheus/targets`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsTargets {
    /// Addresses to scrape: one.
    pub targets: Vec<String>,
    /// `__metrics_path__`, `job` (the name of the service) and `instance` (the id).
    pub labels: BTreeMap<String, String>,
}

impl ServiceInfo {
    /// Address and path of the metrics that the instance declares; `None` if it declares none, or nothing valid.
    ///
    /// ```
    /// use hubspoke_protocol::ServiceInfo;
    ///
    /// let mut info = ServiceInfo::new("shop", "10.0.0.7:9000");
    /// assert_eq!(info.metrics(), None);
    /// info.meta.insert("metrics".into(), "/metrics".into());
    /// assert_eq!(info.metrics(), Some(("10.0.0.7:9000".into(), "/metrics".into())));
    /// info.meta.insert("metrics".into(), ":9100".into());
    /// assert_eq!(info.metrics(), Some(("10.0.0.7:9100".into(), "/metrics".into())));
    /// ```
    pub fn metrics(&self) -> Option<(String, String)> {
        let declared = self.meta.get(META_METRICS)?;
        let control = self.control_addr();
        let (port, path) = match (declared.strip_prefix(':'), declared.find('/')) {
            (Some(rest), Some(slash)) => (Some(&rest[..slash - 1]), &declared[slash..]),
            (Some(port), None) => (Some(port), METRICS_PATH),
            (None, Some(0)) => (None, declared.as_str()),
            (None, _) => return None,
        };
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
        if path.len() > MAX_PATH || !path.bytes().all(is_plain) {
            return None;
        }
        let addr = match port {
            Some(port) => {
                let port = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
                let port: u16 = port?.parse().ok().filter(|port| *port != 0)?;
                format!("{}:{port}", control.rsplit_once(':')?.0)
            }
            None => control.to_owned(),
        };
        Some((addr, path.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_metrics() {
        let mut info = ServiceInfo::new("shop", "[::1]:9000");
        for (declared, expected) in [
            ("/metrics", Some(("[::1]:9000", "/metrics"))),
            ("/actuator/prometheus", Some(("[::1]:9000", "/actuator/prometheus"))),
            (":9100", Some(("[::1]:9100", "/metrics"))),
            (":9100/m", Some(("[::1]:9100", "/m"))),
            ("", None),
            ("metrics", None),
            (":", None),
            (":0", None),
            (":+1", None),
            (":65536", None),
            (":x/m", None),
            (":/m", None),
            ("evil.example:80/m", None),
            ("//evil.example", Some(("[::1]:9000", "//evil.example"))),
            ("/a b", None),
            ("/a?b", None),
            ("/\u{e9}", None),
        ] {
            info.meta.insert(META_METRICS.to_owned(), declared.to_owned());
            let expected = expected.map(|(addr, path)| (addr.to_owned(), path.to_owned()));
            assert_eq!(info.metrics(), expected, "{declared}");
        }
        info.control_addr = Some("10.0.0.7:20011".to_owned());
        info.meta.insert(META_METRICS.to_owned(), METRICS_PATH.to_owned());
        assert_eq!(info.metrics().unwrap().0, "10.0.0.7:20011");
        info.meta.insert(META_METRICS.to_owned(), "/x".repeat(MAX_PATH));
        assert_eq!(info.metrics(), None);
    }
}
