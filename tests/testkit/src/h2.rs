//! HTTP/2 as frames: what goes over the wire is what the test writes, however wrong.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub use self::hpack::{block, field};

mod hpack;

/// The beginning of a connection (RFC 9113, 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types (RFC 9113, 6).
#[allow(missing_docs, reason = "the names are the RFC's")]
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames.
#[allow(missing_docs, reason = "the names are the RFC's")]
pub mod flag {
    pub const ACK: u8 = 1;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 0x20;
}

/// How long a server may take to react.
const REACTION: Duration = Duration::from_secs(10);

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// One of [`kind`].
    pub kind: u8,
    /// Of [`flag`].
    pub flags: u8,
    /// 0 is the connection.
    pub stream: u32,
    /// What follows its nine first bytes.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The status in a `HEADERS` frame.
    pub fn status(&self) -> Option<u16> {
        (self.kind == kind::HEADERS).then(|| hpack::status(&self.payload)).flatten()
    }

    /// The error code in a `RST_STREAM` or `GOAWAY` frame.
    pub fn error_code(&self) -> Option<u32> {
        let at = match self.kind {
            kind::RST_STREAM => 0,
            kind::GOAWAY => 4,
            _ => return None,
        };
        Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().ok()?))
    }
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A client's side of a connection.
#[derive(Debug)]
pub struct H2Conn {
    /// The connection.
    pub stream: TcpStream,
    /// Whether [`H2Conn::read`] has given up.
    pub timed_out: bool,
}

impl H2Conn {
    /// Connects, and sends the preface and `SETTINGS`: no dynamic table, so that [`Frame::status`] needs none.
    pub async fn connect(addr: SocketAddr) -> Self {
        Self::with_settings(addr, &[(1, 0)]).await
    }

    /// The same with other settings.
    pub async fn with_settings(addr: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut conn = Self { stream: TcpStream::connect(addr).await.unwrap(), timed_out: false };
        conn.write([PREFACE, &frame(kind::SETTINGS, 0, 0, &self::settings(settings))].concat()).await;
        conn
    }

    /// Writes all of `bytes`. A server that has closed the connection is not an error.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Reads the next frame; `None` if the server closes the connection, or is silent for 10 s. The server's settings are
    /// acknowledged.
    pub async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        let reading = async {
            self.stream.read_exact(&mut head).await.ok()?;
            let [high, middle, low, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, high, middle, low])).unwrap()];
            self.stream.read_exact(&mut payload).await.ok()?;
            Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
        };
        let read = timeout(REACTION, reading).await;
        self.timed_out = read.is_err();
        let read = read.ok().flatten()?;
        if read.kind == kind::SETTINGS && read.flags & flag::ACK == 0 {
            self.write(frame(kind::SETTINGS, flag::ACK, 0, &[])).await;
        }
        Some(read)
    }

    /// Reads until a frame is `wanted`; `None` if the server closes the connection first.
    pub async fn read_until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.read().await?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }

    /// Reads to the end of a stream: the statuses of its heads, its data, and the error code if it was reset.
    pub async fn response(&mut self, stream: u32) -> (Vec<u16>, Vec<u8>, Option<u32>) {
        let (mut statuses, mut data) = (Vec::new(), Vec::new());
        while let Some(frame) = self.read().await {
            if frame.kind == kind::GOAWAY && frame.error_code() != Some(0) {
                return (statuses, data, frame.error_code());
            }
            if frame.stream != stream {
                continue;
            }
            statuses.extend(frame.status());
            match frame.kind {
                kind::DATA => data.extend(&frame.payload),
                kind::RST_STREAM => return (statuses, data, frame.error_code()),
                _ => {}
            }
            if matches!(frame.kind, kind::DATA | kind::HEADERS) && frame.flags & flag::END_STREAM != 0 {
                break;
            }
        }
        (statuses, data, None)
    }
}

/// The payload of a `SETTINGS` frame.
pub fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect()
}

/// A `HEADERS` frame that is a whole request head.
pub fn head(stream: u32, fields: &[(&str, &str)], end_stream: bool) -> Vec<u8> {
    let flags = flag::END_HEADERS | if end_stream { flag::END_STREAM } else { 0 };
    frame(kind::HEADERS, flags, stream, &block(fields))
}

/// The pseudo-header fields of a request.
pub fn pseudo<'a>(method: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path)]
}
