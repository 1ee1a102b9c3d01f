//! Whether a program that runs still answers, and what its heartbeats report of that.
//!
//! A program that fails its check is never killed. After one failure its heartbeats fail, so it becomes suspect; after
//! two they report that it is draining, so it gets no more requests and stays known. It serves again after one success.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Time between two checks.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A question that a program must answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Check {
    /// Nothing: a program that runs is alive.
    None,
    /// A connection.
    Tcp(SocketAddr),
    /// A response with 2xx or 3xx.
    Url(String),
}

impl Check {
    /// Asks once.
    ///
    /// # Errors
    /// Why it failed.
    pub(crate) async fn ask(&self, http: &reqwest::Client) -> Result<(), String> {
        let asked = async {
            match self {
                Self::None => Ok(()),
                Self::Tcp(addr) => {
                    TcpStream::connect(addr).await.map(drop).map_err(|error| error.to_string())
                }
                Self::Url(url) => {
                    let response = http.get(url).send().await.map_err(|error| {
                        let error = error.without_url();
                        hubspoke_client::with_causes(&error).to_string()
                    })?;
                    let status = response.status();
                    if status.is_success() || status.is_redirection() {
                        Ok(())
                    } else {
                        Err(format!("it answers {status}"))
                    }
                }
            }
        };
        timeout(TIMEOUT, asked).await.unwrap_or_else(|_| Err("it does not answer in time".to_owned()))
    }
}

/// Failures in a row, as far as they matter. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health(Arc<AtomicU8>);

/// The answer to a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It serves.
    Serving,
    /// It failed once: no answer.
    Failing,
    /// It keeps failing.
    Draining,
}

impl Health {
    pub(crate) fn verdict(&self) -> Verdict {
        match self.0.load(Relaxed) {
            0 => Verdict::Serving,
            1 => Verdict::Failing,
            _ => Verdict::Draining,
        }
    }

    /// Notes a result. Returns whether the verdict is another one than before.
    pub(crate) fn note(&self, passed: bool) -> bool {
        let before = self.verdict();
        let failures = self.0.load(Relaxed);
        self.0.store(if passed { 0 } else { failures.saturating_add(1) }, Relaxed);
        self.verdict() != before
    }
}

/// Checks until the verdict changes. Returns the result that changed it.
pub(crate) async fn next_change(
    check: &Check,
    http: &reqwest::Client,
    health: &Health,
) -> Result<(), String> {
    if *check == Check::None {
        return std::future::pending().await;
    }
    loop {
        sleep(INTERVAL).await;
        let result = check.ask(http).await;
        if health.note(result.is_ok()) {
            return result;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_is_a_missed_heartbeat_and_two_a_drain() {
        let health = Health::default();
        assert_eq!(health.verdict(), Verdict::Serving);
        assert!(health.note(false));
        assert_eq!(health.verdict(), Verdict::Failing);
        assert!(health.note(false));
        assert!(!health.note(false));
        assert_eq!(health.verdict(), Verdict::Draining);
        assert!(health.note(true));
        assert_eq!(health.verdict(), Verdict::Serving);
    }

    #[tokio::test]
    async fn a_port_is_checked_by_a_connection_and_a_url_by_its_status() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        assert_eq!(Check::Tcp(addr).ask(&http).await, Ok(()));
        drop(listener);
        assert!(Check::Tcp(addr).ask(&http).await.unwrap_err().contains("refused"));
        assert!(Check::Url(format!("http://{addr}/")).ask(&http).await.is_err());
        assert_eq!(Check::None.ask(&http).await, Ok(()));
    }
}
