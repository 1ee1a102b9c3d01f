//! One request to one member, for heartbeats and pushes.
//!
//! Between requests only the socket is kept, and lent to hyper for the length of the next exchange: ten thousand
//! idle members then cost ten thousand sockets, and no buffers or tasks. Redirects are not followed and proxies
//! not used: a member answers itself or not at all. A reply's body is read up to a limit; more than that, or a
//! reply that ends the connection, costs the socket and nothing else.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Version, header};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use tokio::net::TcpStream;

/// A connection on which nothing is under way.
#[derive(Debug)]
pub(crate) struct Idle(TcpStream);

/// What a member answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// The body; nothing where it was longer than the limit.
    pub(crate) body: Option<Bytes>,
    /// The connection, where it can be used again.
    pub(crate) idle: Option<Idle>,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error("can't connect: {0}")]
    Connect(#[source] io::Error),
    #[error("broken answer: {}", root(.0))]
    Http(#[source] hyper::Error),
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
}

impl PeerError {
    /// In a word, for spans.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Http(_) => "broken_answer",
            Self::Timeout(_) => "timeout",
        }
    }

    /// Whether the member was not even asked, for want of something on this side: file descriptors, memory, ports.
    /// `addr` is where it was to be asked.
    pub(crate) fn is_our_lack(&self, addr: &str) -> bool {
        let Self::Connect(error) = self else { return false };
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => true,
            // No port is left; for an address of IPv6 it may as well mean that this host has none of those.
            Some(Errno::ADDRNOTAVAIL) => !addr.starts_with('['),
            _ => false,
        }
    }
}

fn root(error: &hyper::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Sends a request and reads the reply, all within `timeout`. A kept connection may have been closed meanwhile by
/// the other side, so the request is then sent once more on a new one; it must bear being received twice.
pub(crate) async fn ask<B>(
    addr: &str,
    idle: Option<Idle>,
    request: impl Fn() -> Request<B>,
    limit: usize,
    timeout: Duration,
) -> Result<Reply, PeerError>
where
    B: Body<Data = Bytes, Error = std::convert::Infallible> + Send + 'static,
{
    let exchange = async {
        if let Some(Idle(stream)) = idle
            && let Ok(reply) = exchange(stream, request(), limit).await
        {
            return Ok(reply);
        }
        let stream = connect(addr).await.map_err(PeerError::Connect)?;
        exchange(stream, request(), limit).await.map_err(PeerError::Http)
    };
    tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(PeerError::Timeout(timeout)))
}

async fn connect(addr: &str) -> io::Result<TcpStream> {
    // An address of digits needs no resolver, and so no thread.
    let stream = match addr.parse::<SocketAddr>() {
        Ok(addr) => TcpStream::connect(addr).await?,
        Err(_) => TcpStream::connect(addr).await?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn exchange<B>(stream: TcpStream, request: Request<B>, limit: usize) -> Result<Reply, hyper::Error>
where
    B: Body<Data = Bytes, Error = std::convert::Infallible> + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut connection = pin!(connection.without_shutdown());
    let mut parts = None;
    let mut reply = {
        let mut talk = pin!(async move {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let closes = head.version == Version::HTTP_10 || says_close(&head.headers);
            let body = read(body, limit).await?;
            let idle = None;
            let keep = body.is_some() && !closes;
            Ok::<_, hyper::Error>((Reply { status: head.status, headers: head.headers, body, idle }, keep))
        });
        std::future::poll_fn(|context| {
            if parts.is_none()
                && let std::task::Poll::Ready(ended) = connection.as_mut().poll(context)
            {
                parts = Some(ended);
            }
            talk.as_mut().poll(context)
        })
        .await?
    };
    // The sender is gone, so the connection ends as soon as hyper has seen that, and gives the socket back.
    if reply.1 {
        let ended = match parts {
            Some(ended) => ended,
            None => connection.await,
        };
        let parts = ended.ok().filter(|parts| parts.read_buf.is_empty());
        reply.0.idle = parts.map(|parts| Idle(parts.io.into_inner()));
    }
    Ok(reply.0)
}

fn says_close(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONNECTION).iter();
    values.any(|value| value.as_bytes().to_ascii_lowercase().windows(5).any(|word| word == b"close"))
}

async fn read(body: hyper::body::Incoming, limit: usize) -> Result<Option<Bytes>, hyper::Error> {
    if body.size_hint().lower() > limit as u64 {
        return Ok(None); // it says so itself
    }
    match http_body_util::Limited::new(body, limit).collect().await {
        Ok(body) => Ok(Some(body.to_bytes())),
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(error) => Err(*error),
            Err(_) => Ok(None),
        },
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn request() -> Request<Empty<Bytes>> {
        Request::get("/heart-beat").header("host", "x").body(Empty::<Bytes>::new()).unwrap()
    }

    /// Answers each request on each connection with the next of these texts, and says how many it accepted.
    async fn server(replies: Vec<&'static str>) -> (String, tokio::sync::watch::Receiver<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let (count, accepted) = tokio::sync::watch::channel(0);
        tokio::spawn(async move {
            let mut replies = replies.into_iter();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.send_modify(|count| *count += 1);
                let mut buffer = [0; 4096];
                while let Ok(1..) = stream.read(&mut buffer).await {
                    let Some(reply) = replies.next() else { break };
                    if reply.is_empty() {
                        break;
                    }
                    stream.write_all(reply.as_bytes()).await.unwrap();
                }
            }
        });
        (addr, accepted)
    }

    async fn get(addr: &str, idle: Option<Idle>) -> Result<Reply, PeerError> {
        ask::<Empty<Bytes>>(addr, idle, request, 16, Duration::from_millis(500)).await
    }

    #[tokio::test]
    async fn a_connection_is_used_again() {
        let reply = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let (addr, accepted) = server(vec![reply; 5]).await;
        let mut idle = None;
        for _ in 0..5 {
            let reply = get(&addr, idle).await.unwrap();
            assert_eq!((reply.status, reply.body.as_deref()), (StatusCode::OK, Some(&b"ok"[..])));
            idle = reply.idle;
            assert!(idle.is_some());
        }
        assert_eq!(*accepted.borrow(), 1);
    }

    #[tokio::test]
    async fn a_connection_closed_meanwhile_is_replaced() {
        let good = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let (addr, accepted) = server(vec![good, "", good]).await;
        let first = get(&addr, None).await.unwrap();
        let second = get(&addr, first.idle).await.unwrap();
        assert_eq!(second.status, StatusCode::OK);
        assert_eq!(*accepted.borrow(), 2);
    }

    #[tokio::test]
    async fn what_ends_a_connection_is_not_used_again() {
        for (reply, body) in [
            ("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", Some(&b""[..])),
            ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", Some(&b""[..])),
            ("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n", None),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nmore than was said", Some(&b""[..])),
        ] {
            let (addr, _) = server(vec![reply; 2]).await;
            let got = get(&addr, None).await.unwrap();
            assert_eq!((got.body.as_deref(), got.idle.is_none()), (body, true), "{reply}");
        }
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_not_read() {
        let long = "HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\n012345678901234567890123456789";
        let (addr, _) = server(vec![long]).await;
        let reply = get(&addr, None).await.unwrap();
        assert_eq!((reply.status, reply.body, reply.idle.is_none()), (StatusCode::OK, None, true));
    }

    #[test]
    fn what_we_lack_is_told_apart_from_what_a_member_does() {
        let connect = |errno: Errno| PeerError::Connect(io::Error::from(errno));
        for ours in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL] {
            assert!(connect(ours).is_our_lack("127.0.0.1:1"), "{ours}");
        }
        for theirs in [Errno::CONNREFUSED, Errno::HOSTUNREACH, Errno::NETUNREACH, Errno::TIMEDOUT] {
            assert!(!connect(theirs).is_our_lack("127.0.0.1:1"), "{theirs}");
        }
        assert!(!connect(Errno::ADDRNOTAVAIL).is_our_lack("[2001:db8::1]:1"));
        assert!(!PeerError::Timeout(Duration::ZERO).is_our_lack("127.0.0.1:1"));
    }

    #[tokio::test]
    async fn silence_refusal_and_nonsense_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = listener.local_addr().unwrap().to_string();
        assert!(matches!(get(&silent, None).await, Err(PeerError::Timeout(_))));
        drop(listener);
        assert!(matches!(get(&silent, None).await, Err(PeerError::Connect(_))));
        let (addr, _) = server(vec!["SSH-2.0-nonsense\r\n"]).await;
        assert!(matches!(get(&addr, None).await, Err(PeerError::Http(_))));
    }
}
