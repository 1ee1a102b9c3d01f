//! The claims of h2spec, by section of RFC 9113 and RFC 7541: what a client may not send, and what a server must bear.

use std::net::SocketAddr;

use self::claim::Reaction::{Answer, ConnectionError, GoesOn, StreamError};
use self::claim::{PROTOCOL, Reaction};
use crate::h2::kind::{GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS};
use crate::h2::{H2Conn, flag, frame};

mod claim;
mod frames;
mod messages;
mod windows;

/// Holds the server at `addr` to all cases. Returns those in which it did something else.
pub async fn failures(addr: SocketAddr) -> Vec<String> {
    let mut failures = Vec::new();
    let all = frames::framing().into_iter().chain(frames::streams()).chain(frames::control());
    let all = all.chain(messages::messages()).chain(messages::compression());
    for (section, claim, frames, reaction) in all {
        if let Err(instead) = check(addr, &frames, reaction).await {
            failures.push(format!("{section}: {claim}: {reaction:?} expected, {instead}"));
        }
    }
    failures.extend(windows::failures(addr).await);
    failures
}

async fn check(addr: SocketAddr, frames: &[u8], reaction: Reaction) -> Result<(), String> {
    let mut conn = H2Conn::connect(addr).await;
    let first = conn.read().await.ok_or("the connection was closed at once")?;
    if (first.kind, first.flags, first.stream) != (SETTINGS, 0, 0) {
        return Err(format!("the server began with {first:?}"));
    }
    conn.write(frames).await;
    if let GoesOn = reaction {
        conn.write(frame(PING, 0, 0, b"goes on!")).await;
    }
    let mut seen = Vec::new();
    while let Some(frame) = conn.read().await {
        let code = frame.error_code();
        match (reaction, frame.kind) {
            (GoesOn, PING) if frame.flags == flag::ACK && frame.payload == b"goes on!" => return Ok(()),
            (Answer, HEADERS) if frame.stream == 1 && frame.status().is_some() => return Ok(()),
            (StreamError(codes), RST_STREAM | GOAWAY) | (ConnectionError(codes), GOAWAY)
                if code.is_some_and(|code| code == PROTOCOL || codes.contains(&code)) =>
            {
                return Ok(());
            }
            (_, GOAWAY) => return Err(format!("GOAWAY with code {code:?} came after {seen:?}")),
            (GoesOn | Answer, RST_STREAM) => return Err(format!("a stream was reset with code {code:?}")),
            _ => seen.push((frame.kind, frame.stream, code)),
        }
    }
    match reaction {
        _ if conn.timed_out => Err(format!("nothing came after {seen:?}")),
        // The GOAWAY may be lost: what the test has written and the server has not read resets the connection.
        StreamError(_) | ConnectionError(_) => Ok(()),
        GoesOn | Answer => Err(format!("the connection was closed after {seen:?}")),
    }
}
