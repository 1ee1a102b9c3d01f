//! The other processes on this machine, or in this container, that run this program, and the sockets on which they
//! listen: from `/proc`, so nothing has to be written anywhere. Empty where there is no `/proc`.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hubspoke_sockets::ListeningSocket;

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
    let listening = hubspoke_sockets::listening().unwrap_or_default();
    let ids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| *id != std::process::id())
        .map(|id| (id, PathBuf::from(format!("/proc/{id}"))))
        .filter(|(_, folder)| program.is_some() && self::program(folder) == program)
        .filter(|(_, folder)| fs::read_link(folder.join("ns/net")).ok() == network)
        .map(|(id, _)| RunningProcess { id, listens: listens(id, &listening) })
        .filter(|process| !process.listens.is_empty())
        .collect()
}

/// The file that a process runs, by device and number.
fn program(process: &Path) -> Option<(u64, u64)> {
    let file = fs::metadata(process.join("exe")).ok()?;
    Some((file.dev(), file.ino()))
}

fn listens(process: u32, listening: &[ListeningSocket]) -> Vec<SocketAddr> {
    let own = hubspoke_sockets::sockets_of(process).unwrap_or_default();
    listening.iter().filter(|socket| own.contains(&socket.inode)).map(|socket| socket.addr).collect()
}
