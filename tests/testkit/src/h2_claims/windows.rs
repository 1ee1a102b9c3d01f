//! Flow control (RFC 9113, 5.2 and 6.9): a server sends as much as the windows allow. Any response with a body will do.

use std::net::SocketAddr;

use crate::h2::kind::{DATA, GOAWAY, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE};
use crate::h2::{Frame, H2Conn, flag, frame, head, pseudo, settings};

/// `SETTINGS_INITIAL_WINDOW_SIZE`.
const INITIAL_WINDOW: u16 = 4;

/// Returns the claims that do not hold.
pub(super) async fn failures(addr: SocketAddr) -> Vec<String> {
    let mut failures = Vec::new();
    for (claim, holds) in [
        ("6.9.1: a window of one byte lets one byte pass", one_byte(addr).await),
        ("6.9.2: a window that opens later lets the rest pass", opened_later(addr).await),
        ("6.9.2: a window may become negative", negative(addr).await),
        ("6.5.3: settings are acknowledged, and in effect then", acknowledged(addr).await),
    ] {
        if !holds {
            failures.push(claim.to_owned());
        }
    }
    failures
}

/// A connection with a request, and `INITIAL_WINDOW_SIZE`.
async fn request(addr: SocketAddr, window: u32) -> H2Conn {
    let mut conn = H2Conn::with_settings(addr, &[(1, 0), (INITIAL_WINDOW, window)]).await;
    conn.write(head(1, &pseudo("GET", "/"), true)).await;
    conn
}

fn is_data(frame: &Frame) -> bool {
    frame.stream == 1 && frame.kind == DATA || matches!(frame.kind, RST_STREAM | GOAWAY)
}

/// The size of the next `DATA` frame that is not empty.
async fn next_data(conn: &mut H2Conn) -> Option<usize> {
    let read = conn.read_until(|frame| is_data(frame) && !(frame.kind == DATA && frame.payload.is_empty()));
    read.await.filter(|frame| frame.kind == DATA).map(|frame| frame.payload.len())
}

/// Whether no `DATA` comes before a ping is answered.
async fn is_silent(conn: &mut H2Conn) -> bool {
    conn.write(frame(PING, 0, 0, b"silence?")).await;
    let next =
        conn.read_until(|frame| is_data(frame) || frame.kind == PING && frame.flags == flag::ACK).await;
    next.is_some_and(|frame| frame.kind == PING)
}

async fn one_byte(addr: SocketAddr) -> bool {
    let mut conn = request(addr, 1).await;
    next_data(&mut conn).await == Some(1) && is_silent(&mut conn).await
}

async fn opened_later(addr: SocketAddr) -> bool {
    let mut conn = request(addr, 0).await;
    let heads = conn.read_until(|frame| frame.status().is_some() || is_data(frame)).await;
    if heads.is_none_or(|frame| frame.status().is_none()) || !is_silent(&mut conn).await {
        return false;
    }
    conn.write(frame(SETTINGS, 0, 0, &settings(&[(INITIAL_WINDOW, 1)]))).await;
    if next_data(&mut conn).await != Some(1) {
        return false;
    }
    conn.write(frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 2])).await;
    next_data(&mut conn).await == Some(2)
}

async fn negative(addr: SocketAddr) -> bool {
    let mut conn = request(addr, 3).await;
    if next_data(&mut conn).await != Some(3) {
        return false;
    }
    // 3 - 3 sent, then 2 - 3: the first byte that is allowed only closes the gap.
    conn.write(frame(SETTINGS, 0, 0, &settings(&[(INITIAL_WINDOW, 2)]))).await;
    conn.write(frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])).await;
    if !is_silent(&mut conn).await {
        return false;
    }
    conn.write(frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])).await;
    next_data(&mut conn).await == Some(1)
}

async fn acknowledged(addr: SocketAddr) -> bool {
    let mut conn = H2Conn::connect(addr).await;
    let is_ack =
        |frame: &Frame| frame.kind == SETTINGS && frame.flags == flag::ACK && frame.payload.is_empty();
    if conn.read_until(is_ack).await.is_none() {
        return false;
    }
    conn.write(frame(SETTINGS, 0, 0, &settings(&[(INITIAL_WINDOW, 100), (INITIAL_WINDOW, 1)]))).await;
    conn.write(head(1, &pseudo("GET", "/"), true)).await;
    next_data(&mut conn).await == Some(1)
}
