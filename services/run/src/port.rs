//! Chooses free ports. The port is never listened on here: the program itself opens it.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::RngExt;
use socket2::{Domain, Socket, Type};

/// Below the ports that Linux gives to outgoing connections (from 32768), so that none of those takes the port before
/// the program does.
const RANGE: RangeInclusive<u16> = 21_000..=31_999;
/// Ports that are tried before giving up.
const ATTEMPTS: usize = 1_000;

/// The ports that this process has given to programs. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ports(Arc<Mutex<HashSet<u16>>>);

/// A port that no other program of this process gets while the guard lives.
#[derive(Debug)]
pub(crate) struct ReservedPort {
    pub(crate) number: u16,
    ports: Ports,
}

impl Drop for ReservedPort {
    fn drop(&mut self) {
        self.ports.0.lock().remove(&self.number);
    }
}

impl Ports {
    /// A free port on `ip`.
    ///
    /// # Errors
    /// If none is found.
    pub(crate) fn choose(&self, ip: IpAddr) -> io::Result<ReservedPort> {
        let mut rng = rand::rng();
        for _ in 0..ATTEMPTS {
            let number = rng.random_range(RANGE);
            if self.0.lock().insert(number) {
                let reserved = ReservedPort { number, ports: self.clone() };
                if is_free(ip, number) {
                    return Ok(reserved);
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port found"))
    }
}

/// Whether a program that listens on `ip` could open this port, and nobody else has it on loopback, where clients that
/// resolve `localhost` look first.
pub(crate) fn is_free(ip: IpAddr, port: u16) -> bool {
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    [ip].into_iter().chain(loopback).all(|ip| match bind(SocketAddr::new(ip, port)) {
        Ok(()) => true,
        // A machine without this address or family has nobody listening there.
        Err(error) => error.kind() != io::ErrorKind::AddrInUse,
    })
}

/// Binds without listening, and closes the socket again.
fn bind(addr: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?; // connections in TIME_WAIT are no obstacle to programs either
    socket.bind(&addr.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_somebody_listens_on_is_not_free() {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        for listen in ["127.0.0.1:0", "0.0.0.0:0"] {
            let listener = std::net::TcpListener::bind(listen).unwrap();
            assert!(!is_free(ip, listener.local_addr().unwrap().port()), "{listen}");
        }
    }

    #[test]
    fn programs_of_one_process_get_different_ports_and_nobody_listens_on_them() {
        let (ports, ip) = (Ports::default(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        let chosen: Vec<_> = (0..50).map(|_| ports.choose(ip).unwrap()).collect();
        let numbers: HashSet<u16> = chosen.iter().map(|port| port.number).collect();
        assert_eq!(numbers.len(), 50);
        let refused = std::net::TcpStream::connect((ip, chosen[0].number)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        drop(chosen);
        assert!(ports.0.lock().is_empty());
    }
}
