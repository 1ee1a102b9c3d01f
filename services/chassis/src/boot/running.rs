//! The other processes on this machine, or in this container, that run this program, and the sockets on which they
//! listen: from `/proc`, so nothing has to be written anywhere. Empty where there is no `/proc`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// A process that runs this program and listens somewhere.
#[derive(Debug)]
pub(super) struct RunningProcess {
    pub(super) id: u32,
    pub(super) listens: Vec<SocketAddr>,
}

/// All of them in this process's network that this user may look at.
pub(super) fn processes() -> Vec<RunningProcess> {
    let own = Path::new("/proc/self");
    let (program, network) = (program(own), fs::read_link(own.join("ns/net")).ok());
    let ids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| *id != std::process::id())
        .map(|id| (id, PathBuf::from(format!("/proc/{id}"))))
        .filter(|(_, folder)| program.is_some() && self::program(folder) == program)
        .filter(|(_, folder)| fs::read_link(folder.join("ns/net")).ok() == network)
        .map(|(id, folder)| RunningProcess { id, listens: listens(&folder).unwrap_or_default() })
        .filter(|process| !process.listens.is_empty())
        .collect()
}

/// The file that a process runs, by device and number.
fn program(process: &Path) -> Option<(u64, u64)> {
    let file = fs::metadata(process.join("exe")).ok()?;
    Some((file.dev(), file.ino()))
}

fn listens(process: &Path) -> Option<Vec<SocketAddr>> {
    let open = fs::read_dir(process.join("fd")).ok()?.flatten();
    let open = open.filter_map(|entry| fs::read_link(entry.path()).ok()?.into_os_string().into_string().ok());
    let sockets: Vec<String> =
        open.filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect();
    let tables = ["net/tcp", "net/tcp6"].map(|table| fs::read_to_string(process.join(table)));
    let lines: Vec<_> = tables.iter().flatten().flat_map(|table| table.lines()).collect();
    Some(lines.into_iter().filter_map(|line| listening(line, &sockets)).collect())
}

/// The address in a line of `/proc/net/tcp` or `tcp6`, if it is a listening one of these sockets.
fn listening(line: &str, sockets: &[String]) -> Option<SocketAddr> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let [_, local, _, LISTEN, _, _, _, _, _, inode, ..] = fields.as_slice() else { return None };
    if !sockets.iter().any(|socket| socket == inode) {
        return None;
    }
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
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_are_found_by_their_number() {
        let sockets = ["77".to_owned(), "88".to_owned()];
        let read = |line: &str| listening(line, &sockets).map(|addr| addr.to_string());
        let v4 = "   0: 0100007F:4E22 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65532        0 77 1 0";
        assert_eq!(read(v4).as_deref(), Some("127.0.0.1:20002"));
        let v6 = "   1: 00000000000000000000000001000000:4E2B 00000000000000000000000000000000:0000 0A \
                  00000000:00000000 00:00000000 00000000 0 0 88 1 0";
        assert_eq!(read(v6).as_deref(), Some("[::1]:20011"));
        assert_eq!(read(&v4.replace(" 77 ", " 99 ")), None, "another process's");
        assert_eq!(read(&v4.replace(" 0A ", " 01 ")), None, "a connection");
        assert_eq!(read("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt"), None);
    }
}
