//! Which registry is asked: first the address that answered last, then the others.
//!
//! A registry may have several URLs, and a name several addresses. Each address is tried by itself, so that one that is
//! dead costs one connect timeout once, not in each call.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Url;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::url::RegistryUrls;

/// Most addresses of one name that are tried.
const MAX_ADDRS: usize = 16;

/// All registries, and the one that answered last.
#[derive(Debug)]
pub(super) struct Targets {
    urls: Vec<Url>,
    preferred: Mutex<Preferred>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Preferred {
    url: usize,
    addr: Option<SocketAddr>,
}

/// An address of a registry.
#[derive(Debug, Clone)]
pub(super) struct Target {
    at: Preferred,
    url: Url,
    addr: SocketAddr,
    /// All addresses that the URL's host has, in the resolver's order.
    pub(super) addrs: Arc<[SocketAddr]>,
}

impl Target {
    /// The URL of a path below the registry's base URL, with the address in place of the host's name.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}://{}{}{path}", self.url.scheme(), self.addr, self.url.path().trim_end_matches('/'))
    }

    /// The `Host` that the registry is asked by.
    pub(super) fn host(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url.as_str().trim_end_matches('/');
        let host = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        // A name may have several addresses.
        if host.parse::<IpAddr>().is_ok() { f.write_str(url) } else { write!(f, "{url} ({})", self.addr) }
    }
}

impl Targets {
    /// Begins with any of the registries, so that members spread over them.
    pub(super) fn new(urls: &RegistryUrls) -> Self {
        // They have been checked.
        let urls: Vec<_> = urls.iter().filter_map(|url| Url::parse(url).ok()).collect();
        let url = rand::random_range(0..urls.len().max(1));
        Self { urls, preferred: Mutex::new(Preferred { url, addr: None }) }
    }

    /// Begins a call.
    pub(super) fn round(&self) -> Round<'_> {
        let first = *self.preferred.lock();
        Round { targets: self, first, next_url: 0, current: 0, addrs: Arc::default(), left: VecDeque::new() }
    }
}

/// The targets of one call, one after another.
pub(super) struct Round<'a> {
    targets: &'a Targets,
    first: Preferred,
    /// How many URLs have been looked up.
    next_url: usize,
    /// The URL whose addresses these are.
    current: usize,
    addrs: Arc<[SocketAddr]>,
    left: VecDeque<SocketAddr>,
}

impl Round<'_> {
    /// The next target; `None` if there is none left. A name that can't be resolved within `limit` is an error, after
    /// which the next call goes on.
    pub(super) async fn next(&mut self, limit: Duration) -> Option<io::Result<Target>> {
        loop {
            if let Some(addr) = self.left.pop_front() {
                let url = self.targets.urls.get(self.current)?.clone();
                let at = Preferred { url: self.current, addr: Some(addr) };
                return Some(Ok(Target { at, url, addr, addrs: self.addrs.clone() }));
            }
            let urls = &self.targets.urls;
            if self.next_url == urls.len() {
                return None;
            }
            self.current = (self.first.url + self.next_url) % urls.len();
            self.next_url += 1;
            let resolved = timeout(limit, resolve(&urls[self.current])).await;
            match resolved.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(addrs) => {
                    self.left = in_turn(&addrs, self.first.addr);
                    self.addrs = addrs;
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Whether there is no other target to try, as far as is known.
    pub(super) fn is_over(&self) -> bool {
        self.left.is_empty() && self.next_url == self.targets.urls.len()
    }

    /// Notes that a target has answered: it is the first one from now on. Returns whether it was another one before.
    pub(super) fn answered(&self, target: &Target) -> bool {
        let before = std::mem::replace(&mut *self.targets.preferred.lock(), target.at);
        before != target.at && before.addr.is_some()
    }
}

/// The addresses in the order in which they are tried: the one that answered last comes first.
fn in_turn(addrs: &[SocketAddr], answered_last: Option<SocketAddr>) -> VecDeque<SocketAddr> {
    let mut turn: VecDeque<_> = addrs.iter().copied().collect();
    if let Some(at) = answered_last.and_then(|last| turn.iter().position(|addr| *addr == last)) {
        turn.rotate_left(at);
    }
    turn
}

/// The addresses of a registry, in the resolver's order.
async fn resolve(url: &Url) -> io::Result<Arc<[SocketAddr]>> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().unwrap_or(80);
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok([SocketAddr::new(ip, port)].into());
    }
    let mut addrs: Vec<SocketAddr> = Vec::new();
    for addr in lookup_host((host, port)).await? {
        if !addrs.contains(&addr) && addrs.len() < MAX_ADDRS {
            addrs.push(addr);
        }
    }
    if addrs.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address")));
    }
    Ok(addrs.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn targets(text: &str, first: usize) -> Targets {
        let targets = Targets::new(&RegistryUrls::parse(text).unwrap());
        *targets.preferred.lock() = Preferred { url: first, addr: None };
        targets
    }

    async fn urls(targets: &Targets) -> Vec<String> {
        let mut round = targets.round();
        let mut urls = Vec::new();
        while let Some(target) = round.next(LIMIT).await {
            urls.push(target.unwrap().url("/x"));
        }
        assert!(round.is_over());
        urls
    }

    #[tokio::test]
    async fn the_one_that_answered_last_is_asked_first() {
        let targets = targets("http://127.0.0.1:1,http://127.0.0.2:2/hub/,http://[::1]:3", 1);
        let (one, two, three) = ("http://127.0.0.1:1/x", "http://127.0.0.2:2/hub/x", "http://[::1]:3/x");
        assert_eq!(urls(&targets).await, [two, three, one]);
        let mut round = targets.round();
        round.next(LIMIT).await.unwrap().unwrap();
        let answers = round.next(LIMIT).await.unwrap().unwrap();
        assert!(!round.answered(&answers), "the first answer of all");
        assert!(!targets.round().answered(&answers), "the same again");
        assert_eq!(urls(&targets).await, [three, one, two]);
        let other = targets.round().next(LIMIT).await.unwrap().unwrap();
        assert_eq!((other.host().as_str(), other.to_string().as_str()), ("[::1]:3", "http://[::1]:3"));
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_keeps_nobody_from_the_others() {
        let targets = targets("http://nobody.invalid:1,http://localhost:2", 0);
        let mut round = targets.round();
        assert!(round.next(LIMIT).await.unwrap().is_err());
        assert!(!round.is_over());
        let localhost = round.next(LIMIT).await.unwrap().unwrap();
        assert_eq!(localhost.host(), "localhost:2");
        assert!(localhost.addr.ip().is_loopback() && localhost.to_string().contains(" ("));
        assert!(localhost.addrs.contains(&localhost.addr));
    }

    #[test]
    fn of_several_addresses_the_one_that_answered_last_comes_first() {
        let [a, b, c] = ["127.0.0.1:1", "127.0.0.2:1", "[::1]:1"].map(|addr| addr.parse().unwrap());
        assert_eq!(in_turn(&[a, b, c], None), [a, b, c]);
        assert_eq!(in_turn(&[a, b, c], Some(b)), [b, c, a]);
        assert_eq!(in_turn(&[a, c], Some(b)), [a, c], "the name has it no longer");
    }
}
