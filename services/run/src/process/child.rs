//! The supervisor of a program, as its parent sees it.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};

use super::names::SUPERVISE;
use super::os;
use super::reap::{Awaited, kill_left};
use super::supervise::Leave;

/// A program to start.
#[derive(Debug)]
pub(crate) struct Spawn {
    pub(crate) command: Vec<OsString>,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) env: Vec<(String, OsString)>,
    /// Whether the program reads this process's standard input. Otherwise it waits for input that never comes.
    pub(crate) stdin: bool,
    pub(crate) replica: u16,
    pub(crate) port: u16,
    /// Time between SIGTERM and SIGKILL.
    pub(crate) grace: Duration,
    /// How the supervisor deregisters the instance if this process is killed.
    pub(crate) leave: Leave,
}

/// A running program.
#[derive(Debug)]
pub(crate) struct Child {
    process: tokio::process::Child,
    pid: u32,
    instance: String,
    awaited: Awaited,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) stderr: Option<ChildStderr>,
    /// Open, so that the program sees no end of its input.
    _stdin: Option<ChildStdin>,
}

impl Spawn {
    /// Starts the supervisor, which starts the program.
    ///
    /// # Errors
    /// If the supervisor can't be started.
    pub(crate) fn start(self, awaited: &Awaited) -> io::Result<Child> {
        let mut command = Command::new(os::executable()?);
        command.arg0("hub").arg(SUPERVISE);
        command.arg("--parent").arg(std::process::id().to_string());
        command.arg("--replica").arg(self.replica.to_string()).arg("--port").arg(self.port.to_string());
        command.arg("--grace").arg(self.grace.as_millis().to_string());
        command.args(self.leave.args()).arg("--").args(self.command);
        command.envs(self.env);
        if let Some(dir) = self.dir {
            command.current_dir(dir);
        }
        command.stdin(if self.stdin { Stdio::inherit() } else { Stdio::piped() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // Out of the terminal's foreground group: ctrl-c is for this process, which ends the program in order.
        command.process_group(0);
        let (pid, mut process) = awaited.start(|| {
            let process = command.spawn()?;
            Ok((process.id().unwrap_or_default(), process))
        })?;
        Ok(Child {
            stdout: process.stdout.take(),
            stderr: process.stderr.take(),
            _stdin: process.stdin.take(),
            process,
            pid,
            instance: self.leave.id,
            awaited: awaited.clone(),
        })
    }
}

impl Child {
    /// The supervisor's process id; the program is below it.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The program's exit code, as shells give it: 128 and the signal's number after a signal.
    pub(crate) async fn wait(&mut self) -> u8 {
        use std::os::unix::process::ExitStatusExt as _;
        let Ok(status) = self.process.wait().await else { return u8::MAX };
        self.awaited.remove(self.pid);
        if let Some(signal) = status.signal() {
            // The supervisor was killed, so it could not end what is below it.
            kill_left(&self.instance);
            return u8::try_from(128 + signal).unwrap_or(u8::MAX);
        }
        status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
    }

    /// Asks the program to end; it is killed after the grace. A second call kills it at once.
    pub(crate) fn terminate(&self) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM); // it may have ended
        }
    }
}

/// Whoever drops a program that runs asks it to end.
impl Drop for Child {
    fn drop(&mut self) {
        if self.process.id().is_some() {
            self.terminate();
        }
        self.awaited.remove(self.pid);
    }
}
