//! One run of a program: started, ready, registered, ended.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hubspoke_client::log::{LogEntry, LogQueue};
use hubspoke_client::with_causes;
use hubspoke_protocol::ServiceInfo;
use rand::RngExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::environment::{self, Facts};
use super::printed::{LastLines, Printed};
use super::readiness::{Probe, check, sockets_of};
use super::reports::{self, ListensAt};
use super::shared::Shared;
use crate::check::{Health, next_change};
use crate::hint::hint;
use crate::member::Registration;
use crate::platform::{HostAddrs, host_port};
use crate::port::{ReservedPort, is_free};
use crate::process::{Child, Leave, Spawn, TOKEN_VARIABLE};
use crate::spec::{ProgramSpec, Ready};
use crate::terminal::{Prefix, Stream};

/// Exit code of a program that could not be started.
const NOT_STARTED: u8 = 1;
/// How long the supervisor may take beyond the grace.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// How long the last output may take after the exit.
const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// How long the last entries may take.
const FLUSH: Duration = Duration::from_secs(2);

/// Which replica this is.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    /// From 1.
    pub(super) replica: u16,
    pub(super) label: String,
    pub(super) prefix: Prefix,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InstanceState {
    Starting,
    Ready,
    Ended,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exit {
    pub(super) code: u8,
    pub(super) ran: Duration,
}

/// The next stage of its life.
pub(super) enum Next {
    Ready,
    Ended(Exit),
}

/// A running instance. Dropped, it is stopped without a farewell.
pub(super) struct Instance {
    state: watch::Receiver<InstanceState>,
    stop: CancellationToken,
    task: AbortOnDropHandle<Exit>,
}

impl Instance {
    pub(super) fn start(shared: &Arc<Shared>, spec: &Arc<ProgramSpec>, slot: &Slot, restarts: u32) -> Self {
        let (state_of, state) = watch::channel(InstanceState::Starting);
        let stop = CancellationToken::new();
        let run = Run {
            shared: Arc::clone(shared),
            spec: Arc::clone(spec),
            slot: slot.clone(),
            restarts,
            state: state_of,
            stop: stop.clone(),
            started: Instant::now(),
        };
        let task = tokio::spawn(async move {
            let code = run.run().await;
            run.state.send_replace(InstanceState::Ended);
            Exit { code, ran: run.started.elapsed() }
        });
        Self { state, stop, task: AbortOnDropHandle::new(task) }
    }

    /// Waits until it is ready, or has ended. Returns whether it is ready.
    pub(super) async fn ready(&mut self) -> bool {
        let state = self.state.wait_for(|state| *state != InstanceState::Starting).await;
        state.is_ok_and(|state| *state == InstanceState::Ready)
    }

    /// Waits until it is ready or has ended; once it `is_ready`, until it has ended.
    pub(super) async fn next(&mut self, is_ready: bool) -> Next {
        if !is_ready && self.ready().await { Next::Ready } else { Next::Ended(self.ended().await) }
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&mut self) -> Exit {
        (&mut self.task).await.unwrap_or(Exit { code: NOT_STARTED, ran: Duration::ZERO })
    }

    /// Deregisters it and ends the program.
    pub(super) async fn stop(mut self) -> Exit {
        self.stop.cancel();
        let exit = self.ended().await;
        // It ended as it was asked to.
        Exit { code: if exit.code == reports::TERMINATED { 0 } else { exit.code }, ..exit }
    }
}

struct Run {
    shared: Arc<Shared>,
    spec: Arc<ProgramSpec>,
    slot: Slot,
    restarts: u32,
    state: watch::Sender<InstanceState>,
    stop: CancellationToken,
    started: Instant,
}

/// A started program, as far as its readiness and registration need it.
struct Running {
    supervisor: u32,
    host: HostAddrs,
    port: u16,
    _reserved: Option<ReservedPort>,
    info: ServiceInfo,
    uses_placeholder: bool,
    last: LastLines,
    matched: watch::Sender<bool>,
}

impl Run {
    /// Returns the exit code.
    async fn run(&self) -> u8 {
        let (running, mut child, log) = match self.spawn().await {
            Ok(started) => started,
            Err(why) => {
                self.report(&why).await;
                return NOT_STARTED;
            }
        };
        let mut output = JoinSet::new();
        let printed = Printed {
            terminal: self.shared.terminal.clone(),
            prefix: self.slot.prefix.clone(),
            log: log.as_ref().map(LogQueue::pusher),
            replica: self.slot.replica,
            last: running.last.clone(),
            pattern: match &self.spec.ready {
                Ready::Output(pattern) => Some(pattern.clone()),
                _ => None,
            },
            matched: running.matched.clone(),
        };
        if let Some(stdout) = child.stdout.take() {
            output.spawn(printed.clone().follow(Stream::Stdout, stdout));
        }
        if let Some(stderr) = child.stderr.take() {
            output.spawn(printed.follow(Stream::Stderr, stderr));
        }
        let mut registration = None;
        let ended = tokio::select! {
            code = child.wait() => Some(code),
            () = self.stop.cancelled() => None,
            () = self.serve(&running, &mut registration) => None,
        };
        if let Some(registration) = registration {
            let reason = ended.map(|code| reports::exit(code, self.started.elapsed(), self.restarts));
            registration.leave(reason.as_deref()).await;
        }
        let code = match ended {
            Some(code) => code,
            None => self.terminate(&mut child).await,
        };
        // What a killed supervisor has left may hold the pipes.
        let _ = timeout(LAST_OUTPUT, async { while output.join_next().await.is_some() {} }).await;
        let text = reports::ended(code, ended.is_none(), self.started.elapsed());
        if let Some(log) = &log {
            let level = if code == 0 || ended.is_none() { "info" } else { "error" };
            let mut entry = LogEntry { text: text.clone(), level: Some(level), ..LogEntry::default() };
            entry.fields.insert("exit_code".to_owned(), code.into());
            entry.fields.insert("restarts".to_owned(), self.restarts.into());
            let _ = log.push(entry); // a loss is counted
        }
        self.report(&text).await;
        if let Some(log) = log {
            let left = log.flush(FLUSH).await as u64 + log.lost();
            if left > 0 {
                self.report(&format!("{left} lines of its output did not reach the log service")).await;
            }
        }
        code
    }

    async fn report(&self, text: &str) {
        self.shared.terminal.remark(&format!("{} {text}", self.slot.label)).await;
    }

    async fn spawn(&self) -> Result<(Running, Child, Option<LogQueue>), String> {
        let (spec, platform) = (&*self.spec, &self.shared.platform);
        let host = platform.host_addrs(spec.host.as_deref()).await;
        let host =
            host.map_err(|error| format!("can't tell where it should listen: {}", with_causes(&error)))?;
        let bind = host.listen.parse().unwrap_or(host.local);
        let (port, reserved) = match spec.port {
            Some(first) => {
                let port =
                    first.checked_add(self.slot.replica - 1).ok_or("has no port: too many replicas")?;
                if !is_free(bind, port) {
                    return Err(format!("can't start: port {port} is in use by another program"));
                }
                (port, None)
            }
            None => {
                let reserved = self.shared.ports.choose(bind);
                let reserved = reserved.map_err(|error| format!("can't start: {error}"))?;
                (reserved.number, Some(reserved))
            }
        };
        let id = format!("{}-{:016x}", spec.name, rand::rng().random::<u64>());
        let mut info = ServiceInfo::new(&spec.name, host_port(&host.advertise, port));
        info.id = Some(id.clone());
        info.required_services.clone_from(&spec.needs);
        info.meta = self.meta();
        let gateway = platform.gateway();
        let facts = Facts {
            id: &id,
            port,
            host: &host,
            gateway: gateway.as_deref(),
            otlp_endpoint: platform.config.otlp_endpoint.as_deref(),
            inherited: &|name| std::env::var(name).ok(),
        };
        let mut env = environment::variables(spec, &facts);
        // For the supervisor, which does not hand it on.
        if let Some(token) = platform.config.token.as_ref().filter(|_| platform.config.token_file.is_none()) {
            env.push((TOKEN_VARIABLE.to_owned(), token.get().to_string().into()));
        }
        let (command, uses_placeholder) = environment::command(spec, port, &host);
        let leave = Leave {
            registry: platform.config.registry.clone(),
            token_file: platform.config.token_file.clone(),
            name: spec.name.clone(),
            addr: info.addr.clone(),
            id,
        };
        let spawn = Spawn {
            command,
            dir: spec.dir.clone(),
            env,
            stdin: spec.stdin,
            replica: self.slot.replica,
            port,
            grace: spec.grace,
            leave,
        };
        let child = spawn.start(&self.shared.awaited).map_err(|error| {
            let dir: PathBuf = spec.dir.clone().unwrap_or_else(|| ".".into());
            format!("can't start in {}: {error}", dir.display())
        })?;
        let log = match platform.log_queue(&info) {
            Ok(log) => Some(log),
            Err(error) => {
                self.report(&format!("prints to the terminal only: {}", with_causes(&error))).await;
                None
            }
        };
        let running = Running {
            supervisor: child.pid(),
            host,
            port,
            _reserved: reserved,
            info,
            uses_placeholder,
            last: LastLines::default(),
            matched: watch::Sender::new(false),
        };
        Ok((running, child, log))
    }

    /// The facts that callers and people may want to know.
    fn meta(&self) -> std::collections::BTreeMap<String, String> {
        let mut meta = std::collections::BTreeMap::new();
        let mut set = |key: &str, value: String| drop(meta.insert(key.to_owned(), value));
        if self.spec.strip {
            set("route.strip", "true".to_owned());
        }
        if !self.spec.hosts.is_empty() {
            set("route.hosts", self.spec.hosts.join(","));
        }
        set("run.replica", self.slot.replica.to_string());
        if self.restarts > 0 {
            set("run.restarts", self.restarts.to_string());
        }
        meta
    }

    /// Waits until the program answers, registers it and checks it. Never ends.
    async fn serve(&self, running: &Running, registration: &mut Option<Registration>) {
        if matches!(self.spec.ready, Ready::None) {
            self.state.send_replace(InstanceState::Ready);
            return std::future::pending().await;
        }
        let last = watch::Sender::new("it does not answer".to_owned());
        let probe = Probe {
            ready: &self.spec.ready,
            http: self.shared.platform.http(),
            ip: running.host.local,
            port: running.port,
            supervisor: running.supervisor,
            matched: running.matched.subscribe(),
            last: &last,
        };
        let probe = probe.ready();
        tokio::pin!(probe);
        let deadline = self.started + self.spec.ready_timeout;
        let mut reported = false;
        let addr = loop {
            tokio::select! {
                addr = &mut probe => break addr,
                () = sleep_until(deadline), if !reported => {
                    reported = true;
                    let last = last.borrow().clone();
                    self.report_not_ready(running, &last).await;
                }
            }
        };
        let answered_after = self.started.elapsed();
        let mut info = running.info.clone();
        let mut host = running.host.clone();
        if addr.ip() != running.host.local {
            info.addr = addr.to_string(); // it listens on the other loopback address
            host.advertise = addr.ip().to_string();
            host.local = addr.ip();
        }
        let health = Health::default();
        match Registration::start(&self.shared.platform, &host, info.clone(), health.clone()).await {
            Ok(started) => {
                let started = registration.insert(started);
                let (mut joined, mut failing) = (started.joined(), started.failing());
                let is_registered = tokio::select! {
                    joined = joined.wait_for(|joined| *joined) => joined.is_ok(),
                    failed = failing.wait_for(Option::is_some) => failed.is_err(),
                };
                let gateway = self.shared.platform.gateway().filter(|_| is_registered);
                let at = ListensAt { addr, registered: &info.addr, is_registered };
                self.report(&reports::reachable(&self.spec.name, gateway.as_deref(), &at, answered_after))
                    .await;
            }
            Err(error) => self.report(&format!("can't be registered: {}", with_causes(&error))).await,
        }
        self.state.send_replace(InstanceState::Ready);
        let check = check(&self.spec.ready, addr);
        let http = self.shared.platform.http();
        loop {
            match next_change(&check, http, &health).await {
                Ok(()) => self.report("answers again").await,
                Err(why) => self.report(&format!("does not answer its check: {why}")).await,
            }
        }
    }

    async fn report_not_ready(&self, running: &Running, last: &str) {
        let hint = hint(
            &self.spec.ready,
            running.host.local,
            running.port,
            running.uses_placeholder,
            sockets_of(running.supervisor).as_deref(),
            last,
        );
        self.report(&reports::not_ready(self.spec.ready_timeout, &hint, &running.last.show())).await;
    }

    /// Ends the program, and kills it after the grace.
    async fn terminate(&self, child: &mut Child) -> u8 {
        child.terminate();
        if let Ok(code) = timeout(self.spec.grace + KILL_WAIT, child.wait()).await {
            return code;
        }
        child.terminate();
        child.wait().await
    }
}
