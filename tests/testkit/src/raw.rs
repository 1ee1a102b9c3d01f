//! HTTP/1.1 as text: what goes over the wire is what the test writes, however wrong.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::time::timeout;

use crate::wait::DEADLINE;

/// One side of a connection. Bytes that are not UTF-8 are shown as U+FFFD.
#[derive(Debug)]
pub struct RawConn {
    /// The connection.
    pub stream: TcpStream,
}

impl RawConn {
    /// Connects to a server.
    pub async fn connect(addr: impl ToSocketAddrs) -> Self {
        Self { stream: TcpStream::connect(addr).await.unwrap() }
    }

    /// Writes all of `bytes`.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads until `enough` holds for the text so far, or the other side closes the connection.
    pub async fn read_until(&mut self, enough: impl Fn(&str) -> bool) -> String {
        self.try_read_until(enough).await.0
    }

    /// The same, and the error that ended the connection, if one did: a reset.
    pub async fn try_read_until(&mut self, enough: impl Fn(&str) -> bool) -> (String, io::Result<()>) {
        let mut read = Vec::new();
        let reading = async {
            while !enough(&String::from_utf8_lossy(&read)) {
                if self.stream.read_buf(&mut read).await? == 0 {
                    break;
                }
            }
            Ok(())
        };
        let ended = timeout(DEADLINE, reading).await;
        let text = String::from_utf8_lossy(&read).into_owned();
        (text.clone(), ended.unwrap_or_else(|_| panic!("nothing more came after {text:?}")))
    }

    /// Reads until the other side closes the connection.
    pub async fn read_to_end(&mut self) -> String {
        self.read_until(|_| false).await
    }

    /// Reads one response that has a `Content-Length`; one without is taken to have no body.
    pub async fn response(&mut self) -> String {
        self.read_until(has_whole_body).await
    }

    /// Reads one request with its body, by length or chunked; `None` if the client closes the connection first.
    /// Waits for as long as it takes.
    pub async fn request(&mut self) -> Option<String> {
        let mut read = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&read).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let last_chunk = body.starts_with("0\r\n") || body.contains("\r\n0\r\n");
                let complete = match header(head, "transfer-encoding") {
                    Some(_) => last_chunk && body.ends_with("\r\n\r\n"),
                    None => has_whole_body(&text),
                };
                if complete {
                    return Some(text);
                }
            }
            if self.stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }
}

/// Whether `text` is a head with as much of a body as its `Content-Length` says.
pub fn has_whole_body(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = header(head, "content-length").map_or(0, |value| value.parse().unwrap());
    body.len() >= length
}

/// The status of a response; 0 if it has none.
pub fn status(response: &str) -> u16 {
    response.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// The value of the first header of this name, in a head or a whole message.
pub fn header(message: &str, name: &str) -> Option<String> {
    let head = message.split("\r\n\r\n").next()?;
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(key, value)| key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned()))
}

/// The problem document that a response carries.
///
/// # Panics
/// If it carries anything else.
pub fn problem(response: &str) -> serde_json::Value {
    assert_eq!(header(response, "content-type").as_deref(), Some("application/problem+json"), "{response}");
    let body = response.split_once("\r\n\r\n").unwrap().1;
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {response}"))
}
