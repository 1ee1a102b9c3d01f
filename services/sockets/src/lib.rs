//! Which TCP sockets listen for connections on this machine, or in this container, and which process has them: from
//! `/proc`, so nothing has to be written anywhere. Systems without `/proc` have no answer.
//!
//! ```
//! # #[cfg(target_os = "linux")] {
//! let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! let own = hubspoke_sockets::sockets_of(std::process::id())?;
//! let listening = hubspoke_sockets::listening().unwrap_or_default();
//! let found = listening.iter().find(|socket| own.contains(&socket.inode));
//! assert_eq!(found.map(|socket| socket.addr), Some(listener.local_addr()?));
//! # }
//! # Ok::<(), std::io::Error>(())
//! ```

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// A socket that listens for connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListeningSocket {
    /// Tells sockets apart.
    pub inode: u64,
    /// Where it listens.
    pub addr: SocketAddr,
}

/// All listening sockets in the network of this process. `None` if that can't be found out.
pub fn listening() -> Option<Vec<ListeningSocket>> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"].map(fs::read_to_string);
    if tables.iter().all(Result::is_err) {
        return None;
    }
    Some(tables.iter().flatten().flat_map(|table| table.lines()).filter_map(parse).collect())
}

/// The inodes of the sockets that a process has open, whatever they are for.
///
/// # Errors
/// If the process has ended, belongs to another user, or there is no `/proc`.
pub fn sockets_of(process: u32) -> io::Result<Vec<u64>> {
    let open = fs::read_dir(format!("/proc/{process}/fd"))?.flatten();
    let inode = |entry: fs::DirEntry| {
        let link = fs::read_link(entry.path()).ok()?;
        link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    Ok(open.filter_map(inode).collect())
}

/// A line of `/proc/net/tcp` or `tcp6`, if it is a listening socket.
fn parse(line: &str) -> Option<ListeningSocket> {
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
    let addr = SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?);
    Some(ListeningSocket { inode: inode.parse().ok()?, addr })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_socket_listens_until_it_is_closed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let find = || listening().unwrap().into_iter().find(|socket| socket.addr == addr);
        let own = sockets_of(std::process::id()).unwrap();
        assert!(find().is_some_and(|socket| own.contains(&socket.inode)));
        drop(listener);
        assert_eq!(find(), None);
        assert!(sockets_of(u32::MAX).is_err());
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_of_the_tables() {
        let read = |line: &str| parse(line).map(|socket| (socket.inode, socket.addr.to_string()));
        let v4 = "   0: 0100007F:4E22 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65532        0 77 1 0";
        assert_eq!(read(v4), Some((77, "127.0.0.1:20002".to_owned())));
        let v6 = "   1: 00000000000000000000000001000000:4E2B 00000000000000000000000000000000:0000 0A \
                  00000000:00000000 00:00000000 00000000 0 0 88 1 0";
        assert_eq!(read(v6), Some((88, "[::1]:20011".to_owned())));
        assert_eq!(read(&v4.replace(" 0A ", " 01 ")), None, "a connection");
        assert_eq!(read("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt"), None);
        for broken in ["0100007F4E22", "x100007F:4E22", "0100007F:14E22"] {
            assert_eq!(read(&v4.replace("0100007F:4E22", broken)), None, "{broken}");
        }
    }
}
