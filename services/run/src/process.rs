//! Running a program so that nothing of it outlives us.
//!
//! A program is started by a small supervisor: this executable again, with a hidden subcommand ([`supervise`]). The
//! supervisor is the subreaper of the program and of everything that the program starts, so even what detaches itself
//! remains below it. It passes signals on, follows a program that goes to the background, and reports the exit code as
//! its own. It ends everything below it when the program is to stop, when it has failed, and when the process that
//! started it is gone, for whatever reason. The program itself is killed by the kernel if its supervisor is.
//!
//! No code runs between fork and exec, so none of it is unsafe: the second hidden subcommand ([`exec`]) sets the signal
//! for the parent's death and becomes the program.

pub use self::exec::exec;
pub use self::names::{EXEC, SUPERVISE};
pub use self::supervise::{Leave, Supervise, supervise};

pub(crate) use self::child::{Child, Spawn};
pub(crate) use self::names::{INSTANCE_VARIABLE, TOKEN_VARIABLE};
pub(crate) use self::reap::Awaited;
pub(crate) use self::sockets::{Listening, listening};
pub(crate) use self::table::{ProcessTable, Usage, page_size, ticks_per_second};

mod child;
mod exec;
mod names;
mod os;
mod reap;
mod sockets;
mod supervise;
mod table;
