//! Where processes listen, from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// A listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listening {
    pub(crate) addr: SocketAddr,
    /// Whether it is one of the processes that were asked for.
    pub(crate) own: bool,
}

/// All listening sockets in this network. `None` if that can't be found out, or the processes can't be looked at.
pub(crate) fn listening(pids: &[u32]) -> Option<Vec<Listening>> {
    let mut own = Vec::new();
    for pid in pids {
        // A process that has ended meanwhile has no sockets; one of another user can't be looked at.
        match fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(open) => own.extend(open.flatten().filter_map(|entry| {
                let link = fs::read_link(entry.path()).ok()?;
                link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
            })),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return None,
            Err(_) => {}
        }
    }
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"].map(fs::read_to_string);
    let sockets: HashMap<u64, SocketAddr> =
        tables.iter().flatten().flat_map(|table| table.lines()).filter_map(parse).collect();
    if tables.iter().all(Result::is_err) {
        return None;
    }
    Some(sockets.into_iter().map(|(inode, addr)| Listening { addr, own: own.contains(&inode) }).collect())
}

/// The inode and the address in a line of `/proc/net/tcp` or `tcp6`, if it is a listening socket.
fn parse(line: &str) -> Option<(u64, SocketAddr)> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let [_, local, _, LISTEN, _, _, _, _, _, inode, ..] = fields.as_slice() else { return None };
    let (ip, port) = local.split_once(':')?;
    // Words of 32 bits in the machine's order, whose bytes are in the network's order.
    let words =
        ip.as_bytes().chunks(8).map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok());
    let bytes: Vec<u8> =
        words.collect::<Option<Vec<u32>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => IpAddr::from(Ipv4Addr::from(v4)),
        Err(_) => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?)),
    };
    Some((inode.parse().ok()?, SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?)))
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_and_whose_they_are() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let find = |pids: &[u32]| {
            listening(pids)
                .unwrap()
                .into_iter()
                .find(|listening| listening.addr == addr)
                .map(|found| found.own)
        };
        assert_eq!(find(&[std::process::id()]), Some(true));
        assert_eq!(find(&[]), Some(false));
        drop(listener);
        assert_eq!(find(&[]), None);
    }
}
