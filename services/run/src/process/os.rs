//! The differences between operating systems. Elsewhere than on Linux, a program that leaves its process group, or is left
//! by a supervisor that was killed, lives on.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, getppid};
use tokio::time::sleep;

const POLL: Duration = Duration::from_millis(100);

/// The executable of this process, even if its file has been replaced meanwhile.
pub(super) fn executable() -> io::Result<PathBuf> {
    if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() }
}

/// Makes this process the parent of all its descendants that lose theirs.
pub(super) fn become_subreaper() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(())
}

/// This process is killed when the thread that started it ends.
pub(super) fn die_with_parent() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    Ok(())
}

/// Completes when the parent, which is `pid`, has ended.
pub(super) async fn parent_ended(pid: Pid) {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{PidfdFlags, pidfd_open};
        use tokio::io::Interest;
        use tokio::io::unix::AsyncFd;

        // Kernels before 5.3 can't.
        #[expect(
            deprecated,
            reason = "what makes it unsound, a file that others close, is not possible with an OwnedFd"
        )]
        if let Ok(fd) = pidfd_open(pid, PidfdFlags::NONBLOCK)
            && let Ok(fd) = AsyncFd::with_interest(fd, Interest::READABLE)
        {
            drop(fd.readable().await);
            return;
        }
    }
    while getppid() == Some(pid) {
        sleep(POLL).await;
    }
}
