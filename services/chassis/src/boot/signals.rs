//! The signals that ask a process to stop.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Exit code after a second signal: 128 + SIGINT, as in shells.
const EXIT_SECOND_SIGNAL: i32 = 130;

/// Completes when the process is asked to stop: SIGTERM, ctrl-c, SIGQUIT, or SIGHUP (the terminal was closed).
pub type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A future that completes at the first signal to stop. The second one ends the process at once, whether it is
/// starting, draining or flushing telemetry. Call it on a multi-threaded runtime.
///
/// A SIGHUP or SIGQUIT that is ignored when the process starts stays ignored, as under `nohup`.
///
/// # Errors
/// If the signals can't be caught.
pub fn shutdown() -> io::Result<Shutdown> {
    let ignored = ignored_signals();
    let mut urgent = vec![signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    let mut hangup = Vec::new();
    for (kind, signals) in [(SignalKind::quit(), &mut urgent), (SignalKind::hangup(), &mut hangup)] {
        if ignored & bit(kind) == 0 {
            signals.push(signal(kind)?);
        }
    }
    let (first, asked) = oneshot::channel();
    // The only task without an owner: it must catch the second signal whatever else has ended.
    tokio::spawn(async move {
        tokio::select! {
            () = poll_fn(|cx| any(&mut urgent, cx)) => {}
            () = poll_fn(|cx| any(&mut hangup, cx)) => {}
        }
        tracing::info!("stopping");
        let _ = first.send(()); // nobody receives it if the service has stopped already
        // A closed terminal sends SIGHUP more than once, and systemd sends one with its SIGTERM.
        poll_fn(|cx| any(&mut urgent, cx)).await;
        std::process::exit(EXIT_SECOND_SIGNAL);
    });
    Ok(Box::pin(async move { drop(asked.await) }))
}

/// Ready if one of the signals has come.
fn any(signals: &mut [Signal], cx: &mut Context<'_>) -> Poll<()> {
    let come = signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
    if come { Poll::Ready(()) } else { Poll::Pending }
}

/// The signals that this process ignores, a bit each. None where there is no `/proc`.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn bit(kind: SignalKind) -> u64 {
    1 << (kind.as_raw_value() - 1)
}
