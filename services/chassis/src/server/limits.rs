//! The limits of a port, and the memory that they add up to.

use std::time::Duration;

use super::file_limit::raise_file_limit;
use crate::memory::MemoryBound;

/// Longest head of an HTTP/1 request, in bytes. hyper buffers no more of a body either, nor of a response. A power of
/// two, because its buffers grow by doubling.
pub const MAX_HEAD: usize = 32 << 10;
/// Longest head of an HTTP/2 request: each field counts 32 bytes more than its text (RFC 9113, section 6.5.2), and the
/// gateway allows 100.
pub const MAX_HEADER_LIST: u32 = 38 << 10;
/// Concurrent streams of one HTTP/2 connection.
pub const MAX_STREAMS: u32 = 64;
/// Bytes of request bodies that one HTTP/2 connection may send ahead of their handlers. All of its streams share it.
pub const CONNECTION_WINDOW: u32 = 65_535;
/// Bytes of a response that an HTTP/2 stream buffers for a client that does not read.
pub const STREAM_SEND_BUFFER: usize = 16 << 10;
/// Streams that were reset, and that an HTTP/2 connection may still remember.
pub const MAX_RESET_STREAMS: usize = 64;
/// What a connection costs beside these buffers: its task, and the state of its protocol. Measured: 14 KiB.
pub const CONNECTION_STATE: usize = 16 << 10;
/// Connections to a port that has only control routes or metrics.
pub const CONTROL_CONNECTIONS: usize = 64;
/// Connections beyond the limit, which get an answer to health checks, and wait for their turn with everything else.
pub const RESERVE: usize = 32;

/// Time for a request's head to arrive, and for an idle connection to send another one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection must have been idle before it is closed for a new one. A client keeps one for its next request,
/// and expects that it may be closed meanwhile.
const MIN_IDLE: Duration = Duration::from_millis(100);
/// The same for one that has had no request yet. Its client is about to send one, and takes a close for a failure.
const MIN_IDLE_UNUSED: Duration = Duration::from_secs(2);
/// File descriptors for everything else that a process opens.
const OTHER_FILES: usize = 32;

/// The limits of a port.
#[derive(Debug, Clone, Copy)]
pub struct PortLimits {
    /// Time for a request's head to arrive.
    pub(super) head: Duration,
    /// Connections.
    pub(super) connections: usize,
    /// Connections per client address (for IPv6, per /64 network).
    pub(super) per_client: usize,
    /// HTTP/2 requests in flight on all connections.
    pub(super) streams: usize,
    /// The same, per client address.
    pub(super) streams_per_client: usize,
    /// Connections beyond that, whose health checks are answered.
    pub(super) reserve: usize,
    /// How long a connection must have been idle before it is closed for a new one.
    pub(super) min_idle: Duration,
    /// The same for one that has had no request yet.
    pub(super) min_idle_unused: Duration,
}

impl PortLimits {
    /// At most so many connections, or as many as the limit of open files allows, and half as many HTTP/2 requests in
    /// flight. One client address may have three quarters of either.
    pub fn new(connections: usize) -> Self {
        Self::within(connections, raise_file_limit())
    }

    fn within(connections: usize, files: usize) -> Self {
        let others = other_files(files);
        let connections = connections.min(files.saturating_sub(others)).max(1);
        Self {
            head: HEAD_TIMEOUT,
            connections,
            per_client: share(connections),
            streams: streams(connections),
            streams_per_client: share(streams(connections)),
            reserve: (others / 8).min(RESERVE),
            min_idle: MIN_IDLE,
            min_idle_unused: MIN_IDLE_UNUSED,
        }
    }
}

/// At most so many connections, or as many as the limit of open files allows if each takes so many files.
pub fn within_file_limit(connections: usize, files_each: usize) -> usize {
    let files = raise_file_limit();
    connections.min(files.saturating_sub(other_files(files)) / files_each.max(1)).max(1)
}

fn other_files(files: usize) -> usize {
    (files / 4).max(OTHER_FILES)
}

/// The HTTP/2 requests in flight on a port with so many connections: half as many, because each takes up more than half
/// of a connection's memory.
const fn streams(connections: usize) -> usize {
    connections.div_ceil(2)
}

/// What one client address may have.
const fn share(all: usize) -> usize {
    (all * 3).div_ceil(4)
}

/// The memory that the clients of a port with so many connections can make it hold, without what the handlers hold.
pub fn memory_bounds(connections: usize) -> Vec<MemoryBound> {
    // A connection speaks one of the two versions. HTTP/1: a head in a handler's hands, a buffer to read into, and one
    // to write from. HTTP/2 costs less: the window, and a frame in each direction.
    let connection = CONNECTION_STATE + 3 * MAX_HEAD;
    // A head, what is buffered of the response, and the piece that is added once there is room for a byte.
    let stream = MAX_HEADER_LIST as usize + 2 * STREAM_SEND_BUFFER;
    vec![
        MemoryBound::new("connections", connection, connections + RESERVE),
        MemoryBound::new("HTTP/2 requests in flight", stream, streams(connections)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_left_for_everything_else() {
        for (connections, files, expected, per_client) in [
            (512, 1 << 20, 512, 384),
            (512, 512, 384, 288),
            (512, 48, 16, 12),
            (512, 16, 1, 1),
            (2, 1 << 20, 2, 2),
        ] {
            let limits = PortLimits::within(connections, files);
            assert_eq!((limits.connections, limits.per_client), (expected, per_client), "{files} files");
        }
    }
}
