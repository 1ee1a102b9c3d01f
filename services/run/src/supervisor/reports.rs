//! The reports about an instance. Pure.

use std::net::SocketAddr;
use std::time::Duration;

/// Exit code after SIGTERM.
pub(super) const TERMINATED: u8 = 128 + 15;

/// The address at which a program listens.
pub(super) struct ListensAt<'a> {
    pub(super) addr: SocketAddr,
    /// As others know it.
    pub(super) registered: &'a str,
    pub(super) is_registered: bool,
}

/// A report that a program is reachable: where, and after how long.
pub(super) fn reachable(name: &str, gateway: Option<&str>, at: &ListensAt<'_>, after: Duration) -> String {
    let after = seconds(after);
    let ListensAt { addr, registered, is_registered } = at;
    let addr = addr.to_string();
    let at = if addr == *registered { addr } else { format!("{addr}, registered as {registered}") };
    match gateway {
        Some(gateway) => format!("is reachable at {gateway}/{name}/ after {after} (listens on {at})"),
        None if *is_registered => format!("is ready after {after} (listens on {at})"),
        None => format!("is ready after {after} (listens on {at}), but not registered yet"),
    }
}

/// How a program has ended; `stopped` is whether it was asked to.
pub(super) fn ended(code: u8, stopped: bool, ran: Duration) -> String {
    let after = seconds(ran);
    match code {
        TERMINATED | 0 if stopped => format!("stopped after {after}"),
        129..=192 => format!("ended by signal {} (exit code {code}) after {after}", code - 128),
        _ => format!("exited with code {code} after {after}"),
    }
}

/// The same for the history of its instance, if it has ended by itself.
pub(super) fn exit(code: u8, ran: Duration, restarts: u32) -> String {
    let ended = ended(code, false, ran);
    match restarts {
        0 => ended,
        1 => format!("{ended}, restarted once before"),
        _ => format!("{ended}, restarted {restarts} times before"),
    }
}

/// Why a program is not ready. `last` are the last lines that it printed.
pub(super) fn not_ready(after: Duration, hint: &str, last: &str) -> String {
    let last = if last.is_empty() { "\n    (nothing)" } else { last };
    format!("is not ready after {}: {hint}. It printed last:{last}", seconds(after))
}

fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 10.0 { format!("{seconds:.2} s") } else { format!("{seconds:.0} s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_say_where_and_how() {
        let at =
            |registered| ListensAt { addr: "127.0.0.1:80".parse().unwrap(), registered, is_registered: true };
        let half = Duration::from_millis(500);
        assert_eq!(
            reachable("web", Some("http://g:1"), &at("127.0.0.1:80"), half),
            "is reachable at http://g:1/web/ after 0.50 s (listens on 127.0.0.1:80)"
        );
        assert!(
            reachable("web", None, &at("10.0.0.7:80"), half)
                .ends_with("(listens on 127.0.0.1:80, registered as 10.0.0.7:80)")
        );
        assert_eq!(ended(0, true, half), "stopped after 0.50 s");
        assert_eq!(ended(TERMINATED, false, half), "ended by signal 15 (exit code 143) after 0.50 s");
        assert_eq!(ended(3, true, Duration::from_secs(90)), "exited with code 3 after 90 s");
        assert_eq!(exit(0, half, 0), "exited with code 0 after 0.50 s");
        assert_eq!(exit(3, half, 2), "exited with code 3 after 0.50 s, restarted 2 times before");
        assert!(not_ready(half, "why", "").ends_with(": why. It printed last:\n    (nothing)"));
    }
}
