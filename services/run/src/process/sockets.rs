//! The listening sockets of programs.

use std::io;
use std::net::SocketAddr;

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
        match hubspoke_sockets::sockets_of(*pid) {
            Ok(sockets) => own.extend(sockets),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return None,
            Err(_) => {} // it has ended meanwhile
        }
    }
    let sockets = hubspoke_sockets::listening()?.into_iter();
    Some(sockets.map(|socket| Listening { addr: socket.addr, own: own.contains(&socket.inode) }).collect())
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_and_whose_they_are() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let own = |pids: &[u32]| {
            let found = listening(pids).unwrap().into_iter().find(|listening| listening.addr == addr);
            found.map(|found| found.own)
        };
        assert_eq!(own(&[std::process::id()]), Some(true));
        assert_eq!(own(&[]), Some(false));
    }
}
