//! Waiting until a program answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::check::Check;
use crate::process::{Listening, ProcessTable, listening};
use crate::spec::Ready;

/// Time between two attempts: at first, and after 10 s.
const OFTEN: Duration = Duration::from_millis(20);
const SELDOM: Duration = Duration::from_millis(200);
const AT_FIRST: Duration = Duration::from_secs(10);

/// Waits for one instance.
pub(super) struct Probe<'a> {
    pub(super) ready: &'a Ready,
    pub(super) http: &'a reqwest::Client,
    pub(super) ip: IpAddr,
    pub(super) port: u16,
    /// The supervisor of the program.
    pub(super) supervisor: u32,
    /// Whether a line of the output has matched.
    pub(super) matched: watch::Receiver<bool>,
    /// Why the last attempt failed.
    pub(super) last: &'a watch::Sender<String>,
}

impl Probe<'_> {
    /// Returns the address at which the program answers.
    pub(super) async fn ready(mut self) -> SocketAddr {
        let addr = SocketAddr::new(self.ip, self.port);
        if let Ready::Output(_) = self.ready {
            if self.matched.wait_for(|matched| *matched).await.is_err() {
                std::future::pending::<()>().await; // its output has ended, and so will it
            }
            return addr;
        }
        let started = Instant::now();
        let mut addrs = vec![addr];
        // What listens on `localhost` may listen on this one alone.
        if self.ip == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            addrs.push(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), self.port));
        }
        loop {
            for addr in &addrs {
                match self.check(*addr).ask(self.http).await {
                    Ok(()) if self.is_own(*addr) => return *addr,
                    Ok(()) => drop(self.last.send_replace("another program answers on its port".to_owned())),
                    Err(why) if *addr == addrs[0] => drop(self.last.send_replace(why)),
                    Err(_) => {}
                }
            }
            sleep(if started.elapsed() < AT_FIRST { OFTEN } else { SELDOM }).await;
        }
    }

    fn check(&self, addr: SocketAddr) -> Check {
        check(self.ready, addr)
    }

    /// Whether it is the program that listens there. What can't be found out is taken for granted.
    fn is_own(&self, addr: SocketAddr) -> bool {
        let Some(sockets) = sockets_of(self.supervisor) else { return true };
        let mut here = sockets.iter().filter(|socket| socket.addr.port() == addr.port()).peekable();
        here.peek().is_none() || here.any(|socket| socket.own)
    }
}

/// The check of a program that is to be ready like that.
pub(super) fn check(ready: &Ready, addr: SocketAddr) -> Check {
    match ready {
        Ready::Tcp => Check::Tcp(addr),
        Ready::Path(path) => Check::Url(format!("http://{addr}{path}")),
        Ready::Output(_) | Ready::None => Check::None,
    }
}

/// The listening sockets of this network, with those below a supervisor marked.
pub(super) fn sockets_of(supervisor: u32) -> Option<Vec<Listening>> {
    let table = ProcessTable::read();
    let pids: Vec<u32> = table.below(supervisor).iter().map(|process| process.pid).collect();
    listening(&pids)
}
