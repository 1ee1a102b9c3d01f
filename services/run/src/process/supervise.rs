//! The supervisor of one program: a process with one thread.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use hubspoke_client::LoadCounters;
use hubspoke_client::membership::MemberConfig;
use hubspoke_client::{Member, Token};
use hubspoke_protocol::ServiceInfo;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getppid, kill_process, kill_process_group, wait,
};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::names::{EXEC, TOKEN_VARIABLE};
use super::table::{Process, ProcessTable};
use super::{os, sockets};

/// Grace for a program whose `hub run` is gone.
const ORPHAN_GRACE: Duration = Duration::from_millis(300);
/// How long the deregistration in place of a killed `hub run` may take before its program is stopped.
const LEAVE_WAIT: Duration = Duration::from_millis(200);
/// How long a program that has gone to the background may take until it listens somewhere.
const DAEMON_START: Duration = Duration::from_secs(5);
/// How long what was killed may take to end.
const KILL_WAIT: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(50);

/// The instance to deregister if the process that registered it is killed.
#[derive(Debug, Clone)]
pub struct Leave {
    /// Base URL of the registry.
    pub registry: String,
    /// File of the token, if the registry wants one and it is not in the environment.
    pub token_file: Option<PathBuf>,
    /// The instance.
    pub name: String,
    /// Its address.
    pub addr: String,
    /// Its `Id`.
    pub id: String,
}

/// The job of a supervisor.
#[derive(Debug)]
pub struct Supervise {
    /// The process that started it.
    pub parent: u32,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// The instance.
    pub leave: Leave,
    /// The program and its arguments.
    pub command: Vec<OsString>,
}

impl Leave {
    /// The arguments that say this to a supervisor.
    pub(super) fn args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        for (option, value) in [
            ("--registry", &self.registry),
            ("--name", &self.name),
            ("--addr", &self.addr),
            ("--id", &self.id),
        ] {
            args.extend([option.into(), value.into()]);
        }
        if let Some(file) = &self.token_file {
            args.extend(["--token-file".into(), file.into()]);
        }
        args
    }

    async fn deregister(&self) {
        let token = match &self.token_file {
            Some(file) => Token::in_file(file).ok(),
            None => std::env::var(TOKEN_VARIABLE).ok().and_then(|token| Token::fixed(&token).ok()),
        };
        let info = ServiceInfo { id: Some(self.id.clone()), ..ServiceInfo::new(&self.name, &self.addr) };
        let mut config = MemberConfig::new(&self.registry, info);
        config.token = token;
        if let Ok(member) = Member::new(config, LoadCounters::default()) {
            // If that fails, the registry finds out by itself.
            let _ = member.deregister_because("the hub process that ran it has ended unexpectedly").await;
        }
    }
}

/// Starts the program and stays until nothing of it is left. Returns its exit code.
pub fn supervise(job: &Supervise) -> u8 {
    let ran = Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(async { Supervisor::start(job)?.run(job).await }));
    ran.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "hub: can't supervise a program: {error}");
        126
    })
}

struct Supervisor {
    parent: Pid,
    program: Pid,
    /// The exit code of the program; after that, the last one of what it has left behind.
    code: Option<u8>,
    /// Nothing is left.
    ended: bool,
}

/// The stage of a program's life, which decides what its supervisor waits for besides exits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// The program has ended with 0 and left something behind: maybe it has gone to the background.
    Detaching {
        until: Instant,
    },
    /// It has.
    Detached,
    Stopping {
        kill_at: Instant,
    },
}

impl Supervisor {
    fn start(job: &Supervise) -> io::Result<Self> {
        let parent = i32::try_from(job.parent).ok().and_then(Pid::from_raw);
        let parent = parent.filter(|parent| getppid() == Some(*parent));
        let parent = parent.ok_or_else(|| io::Error::other("its parent has ended"))?;
        os::become_subreaper()?;
        let mut command = Command::new(os::executable()?);
        command.arg0("hub").arg(EXEC).arg("--parent").arg(std::process::id().to_string()).arg("--");
        command.args(&job.command).process_group(0);
        let program = command.spawn()?;
        let program = i32::try_from(program.id()).ok().and_then(Pid::from_raw);
        let program = program.ok_or_else(|| io::Error::other("a process without an id"))?;
        Ok(Self { parent, program, code: None, ended: false })
    }

    async fn run(mut self, job: &Supervise) -> io::Result<u8> {
        let mut exits = signal(SignalKind::child())?;
        let mut terminate = signal(SignalKind::terminate())?;
        // A terminal's signals are for the parent.
        let _ignored =
            [signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?, signal(SignalKind::quit())?];
        let parent_ended = os::parent_ended(self.parent);
        tokio::pin!(parent_ended);
        let mut phase = Phase::Running;
        loop {
            self.reap();
            phase = match (self.code, phase) {
                _ if self.ended => return Ok(self.code.unwrap_or_default()),
                (Some(0), Phase::Running) => Phase::Detaching { until: Instant::now() + DAEMON_START },
                // It has failed, or something is left that serves nobody.
                (Some(_), Phase::Running) => return self.kill_all().await,
                (_, Phase::Detaching { .. }) if listens() => Phase::Detached,
                (_, Phase::Detaching { until }) if Instant::now() >= until => return self.kill_all().await,
                (_, phase) => phase,
            };
            let (kill_at, poll) = match phase {
                Phase::Stopping { kill_at } => (Some(kill_at), false),
                Phase::Detaching { .. } => (None, true),
                Phase::Running | Phase::Detached => (None, false),
            };
            tokio::select! {
                _ = exits.recv() => {}
                _ = terminate.recv() => {
                    if matches!(phase, Phase::Stopping { .. }) {
                        return self.kill_all().await;
                    }
                    self.signal_all(Signal::TERM);
                    phase = Phase::Stopping { kill_at: Instant::now() + job.grace };
                }
                () = &mut parent_ended => {
                    // Most likely it was killed: nobody else deregisters the instance and stops the program.
                    let mut leave = std::pin::pin!(job.leave.deregister());
                    let left = timeout(LEAVE_WAIT, &mut leave).await.is_ok();
                    self.signal_all(Signal::TERM);
                    let mut stopping = std::pin::pin!(self.end_within(ORPHAN_GRACE));
                    if left {
                        return stopping.await;
                    }
                    tokio::select! {
                        code = &mut stopping => return code,
                        () = &mut leave => {}
                    }
                    return stopping.await;
                }
                () = at(kill_at) => return self.kill_all().await,
                () = sleep(POLL), if poll => {}
            }
        }
    }

    /// Waits until everything has ended, and kills what is left after `grace`.
    async fn end_within(&mut self, grace: Duration) -> io::Result<u8> {
        let kill_at = Instant::now() + grace;
        while Instant::now() < kill_at {
            self.reap();
            if self.ended {
                return Ok(self.code.unwrap_or_default());
            }
            sleep(POLL / 5).await;
        }
        self.kill_all().await
    }

    /// Notes which of the processes below have ended.
    fn reap(&mut self) {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    if pid == self.program || self.code == Some(0) {
                        self.code = Some(code(status));
                    }
                }
                Ok(None) => return,
                Err(error) if error == rustix::io::Errno::INTR => {}
                // No children.
                Err(_) => {
                    self.ended = true;
                    return;
                }
            }
        }
    }

    /// Sends a signal to the program's process group and to everything below that has left it.
    fn signal_all(&self, signal: Signal) {
        let group = u32::try_from(self.program.as_raw_pid()).unwrap_or_default();
        let _ = kill_process_group(self.program, signal); // it may have ended
        for process in below().iter().filter(|process| process.group != group) {
            if let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, signal); // it may have ended
            }
        }
    }

    /// Kills everything below, and what that has started meanwhile.
    async fn kill_all(&mut self) -> io::Result<u8> {
        let deadline = Instant::now() + KILL_WAIT;
        let code = self.code;
        while Instant::now() < deadline {
            self.signal_all(Signal::KILL);
            self.reap();
            if self.ended {
                break;
            }
            sleep(POLL / 10).await;
        }
        // Of a program that has ended by itself, its own code counts.
        Ok(code.or(self.code).unwrap_or(137))
    }
}

fn below() -> Vec<Process> {
    ProcessTable::read()
        .below(std::process::id())
        .into_iter()
        .filter(|process| !process.is_zombie)
        .copied()
        .collect()
}

/// Whether anything below this process listens for connections.
fn listens() -> bool {
    let pids: Vec<u32> = below().iter().map(|process| process.pid).collect();
    sockets::listening(&pids).is_none_or(|sockets| sockets.iter().any(|socket| socket.own))
}

fn code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
