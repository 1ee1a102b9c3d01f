//! Why a program is not ready, as far as its sockets show. Pure.

use std::net::{IpAddr, SocketAddr};

use crate::process::Listening;
use crate::spec::Ready;

/// The advice. `sockets` is `None` if it can't be found out where the program listens; `last` is why the last attempt
/// failed.
pub(crate) fn hint(
    ready: &Ready,
    ip: IpAddr,
    port: u16,
    uses_placeholder: bool,
    sockets: Option<&[Listening]>,
    last: &str,
) -> String {
    if let Ready::Output(pattern) = ready {
        return format!("no line of its output matches {pattern:?}", pattern = pattern.to_string());
    }
    let hand_over = if uses_placeholder {
        "it got the port as an argument and in PORT".to_owned()
    } else {
        "it got the port in the variable PORT; if it reads another one, name it with --port-env, and if it takes an \
         argument, write {port} there"
            .to_owned()
    };
    let Some(sockets) = sockets else {
        return format!("{last}; {hand_over}");
    };
    let own: Vec<SocketAddr> = sockets.iter().filter(|socket| socket.own).map(|socket| socket.addr).collect();
    let on_port: Vec<&SocketAddr> = own.iter().filter(|addr| addr.port() == port).collect();
    if on_port.iter().any(|addr| reaches(addr.ip(), ip)) {
        return format!("it listens on port {port}, but {last}");
    }
    if let Some(addr) = on_port.first() {
        return format!(
            "it listens on {addr} only; make it listen on {ip} (it got that in the variable HOST)"
        );
    }
    if sockets.iter().any(|socket| !socket.own && socket.addr.port() == port && reaches(socket.addr.ip(), ip))
    {
        return format!("another program listens on port {port}");
    }
    match own.first() {
        Some(other) => format!(
            "it listens on {}, not on port {port}: {hand_over}; if it can't be told, pass --port {}",
            list(&own),
            other.port()
        ),
        None => format!("it listens on no port: {hand_over}; if it serves nobody, pass --ready none"),
    }
}

/// Whether a connection to `ip` reaches a socket on `listening`.
fn reaches(listening: IpAddr, ip: IpAddr) -> bool {
    let listening = listening.to_canonical();
    listening == ip || listening.is_unspecified() && (listening.is_ipv6() || ip.is_ipv4())
}

fn list(addrs: &[SocketAddr]) -> String {
    let mut addrs: Vec<String> = addrs.iter().map(ToString::to_string).collect();
    addrs.sort();
    addrs.truncate(5);
    addrs.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::LinePattern;

    #[test]
    fn each_cause_has_its_advice() {
        let ip = "127.0.0.1".parse().unwrap();
        let sockets = |list: &[(&str, bool)]| -> Vec<Listening> {
            list.iter().map(|(addr, own)| Listening { addr: addr.parse().unwrap(), own: *own }).collect()
        };
        let text = |list: &[(&str, bool)], placeholder| {
            hint(&Ready::Tcp, ip, 21000, placeholder, Some(&sockets(list)), "refused")
        };
        assert!(
            text(&[("127.0.0.1:8000", true)], false)
                .starts_with("it listens on 127.0.0.1:8000, not on port 21000")
        );
        assert!(text(&[("127.0.0.1:8000", true)], false).contains("--port-env"));
        assert!(text(&[("127.0.0.1:8000", true)], false).ends_with("pass --port 8000"));
        assert!(text(&[("127.0.0.1:8000", true)], true).contains("as an argument"));
        assert!(
            text(&[("[::1]:21000", true)], true)
                .starts_with("it listens on [::1]:21000 only; make it listen on 127.0.0.1")
        );
        assert!(text(&[("127.0.0.1:21000", false)], true).contains("another program listens on port 21000"));
        assert!(text(&[("127.0.0.1:1", false)], true).contains("it listens on no port"));
        assert_eq!(text(&[("[::]:21000", true)], true), "it listens on port 21000, but refused");
        assert!(hint(&Ready::Tcp, ip, 1, true, None, "refused").starts_with("refused; "));
        let output = Ready::Output(LinePattern::new("up").unwrap());
        assert_eq!(hint(&output, ip, 1, true, None, ""), "no line of its output matches \"up\"");
    }
}
