//! Binaries under test as processes of their own.

use std::ffi::OsStr;
use std::process::Stdio;

use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::wait::DEADLINE;

/// What a process that has ended left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// All that it wrote to stdout.
    pub stdout: String,
    /// All that it wrote to stderr.
    pub stderr: String,
}

/// A command with an empty environment, in the folder for temporary files; stdin is empty, stdout and stderr are
/// captured, and the process is killed when its [`Child`] is dropped.
///
/// ```
/// use hubspoke_testkit::process;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let mut command = process::command("/bin/sh");
/// command.args(["-c", "echo $GREETING; exit 3"]).env("GREETING", "hello");
/// let exit = process::run(command).await;
/// assert_eq!((exit.code, exit.stdout.as_str()), (Some(3), "hello\n"));
/// # }
/// ```
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().current_dir(std::env::temp_dir()).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command to its end.
pub async fn run(mut command: Command) -> Exit {
    wait(command.spawn().unwrap()).await
}

/// Waits for the end of a process.
///
/// # Panics
/// If it does not end within [`DEADLINE`]; it is killed then.
pub async fn wait(child: Child) -> Exit {
    let output =
        timeout(DEADLINE, child.wait_with_output()).await.expect("the process does not end").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Exit { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Sends a signal (`TERM`, `INT`, `KILL`) to a process that runs.
pub async fn signal(child: &Child, name: &str) {
    let pid = child.id().expect("the process has ended").to_string();
    assert!(Command::new("kill").args(["-s", name, &pid]).status().await.unwrap().success());
}

/// Ends a process as a crash would, with SIGKILL, and waits until its files and locks are free again.
pub async fn kill(mut child: Child) {
    child.kill().await.unwrap();
}
