//! The last step before a program runs.

use std::ffi::OsString;
use std::io::{ErrorKind, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::names::TOKEN_VARIABLE;
use super::os;

/// Exit codes of shells for a command that is not found, or can't be executed.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;
/// Becomes the program. Returns only if that fails, with the exit code. `parent` is the supervisor's process id.
pub fn exec(parent: u32, command: &[OsString]) -> u8 {
    let Some((program, args)) = command.split_first() else { return NOT_FOUND };
    let lonely = os::die_with_parent().is_ok() && std::os::unix::process::parent_id() != parent;
    if lonely {
        return NOT_EXECUTABLE; // it ended before the signal for that was set
    }
    let mut command = Command::new(program);
    let error = command.args(args).env_remove(TOKEN_VARIABLE).exec();
    let _ = writeln!(std::io::stderr(), "hub: can't run {}: {error}", program.to_string_lossy());
    if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE }
}
