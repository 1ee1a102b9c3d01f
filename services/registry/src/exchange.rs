//! One HTTP exchange with a member, for heartbeats and pushes.
//!
//! Between exchanges only the socket is kept, and handed to hyper for the next one: ten thousand idle members cost ten
//! thousand sockets, and no buffers or tasks. Redirects are not followed and no proxy is used. A reply body is read up
//! to a limit; a longer one is discarded with its connection.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Version, header};
use http_body::Body;
use http_body_util::BodyExt;
use hubspoke_chassis::with_causes;
use hubspoke_tls::{Generation, Identity, MaybeTls};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::io::Errno;
use tokio::net::TcpStream;

/// A connection between two exchanges.
#[derive(Debug)]
pub(crate) struct IdleConn {
    stream: MaybeTls<TcpStream>,
    /// The identity with which it was opened, if it is TLS.
    generation: Option<Generation>,
}

impl IdleConn {
    fn is_current(&self) -> bool {
        self.generation.as_ref().is_none_or(Generation::is_current)
    }
}

/// The reply of a member.
#[derive(Debug)]
pub(crate) struct ExchangeReply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// The body, unless it exceeded the limit.
    pub(crate) body: Option<Bytes>,
    /// The connection, if it can be reused.
    pub(crate) idle: Option<IdleConn>,
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error("can't connect")]
    Connect(#[source] io::Error),
    #[error("no valid response")]
    Http(#[source] hyper::Error),
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
}

impl ExchangeError {
    /// The `error.type` of spans.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Http(_) => "broken_answer",
            Self::Timeout(_) => "timeout",
        }
    }

    /// The error with its causes, for an instance's history.
    pub(crate) fn reason(&self) -> String {
        with_causes(self)
    }

    /// Whether the cause is a shortage on this host, of file descriptors, memory or ports, rather than the member at
    /// `addr`.
    pub(crate) fn is_local(&self, addr: &str) -> bool {
        let Self::Connect(error) = self else { return false };
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => true,
            // No port is left. With IPv6 it may also mean that this host has no IPv6 address.
            Some(Errno::ADDRNOTAVAIL) => !addr.starts_with('['),
            _ => false,
        }
    }
}

/// A member as it is called: its address, and the name that its certificate must have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Callee<'a> {
    pub(crate) name: &'a str,
    pub(crate) addr: &'a str,
}

/// Opens connections to members: in clear text or, if the registry has an identity, over mutual TLS.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemberDialer {
    identity: Option<Arc<Identity>>,
}

impl MemberDialer {
    pub(crate) fn new(identity: Option<Arc<Identity>>) -> Self {
        Self { identity }
    }

    /// Sends a request and reads the reply, all within `timeout`. If the idle connection fails, the request is sent again
    /// on a new one, since the member may have closed it meanwhile. So the request must be idempotent.
    pub(crate) async fn send<B>(
        &self,
        to: Callee<'_>,
        idle: Option<IdleConn>,
        request: impl Fn() -> Request<B>,
        limit: usize,
        timeout: Duration,
    ) -> Result<ExchangeReply, ExchangeError>
    where
        B: Body<Data = Bytes, Error = std::convert::Infallible> + Send + 'static,
    {
        let exchange = async {
            if let Some(idle) = idle.filter(IdleConn::is_current)
                && let Ok(reply) = exchange(idle, request(), limit).await
            {
                return Ok(reply);
            }
            let generation = self.identity.as_ref().map(Identity::generation);
            let stream = self.connect(to).await.map_err(ExchangeError::Connect)?;
            exchange(IdleConn { stream, generation }, request(), limit).await.map_err(ExchangeError::Http)
        };
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(ExchangeError::Timeout(timeout)))
    }

    /// Connects, and closes the connection again.
    pub(crate) async fn reach(&self, to: Callee<'_>, timeout: Duration) -> Result<(), ExchangeError> {
        let connected = tokio::time::timeout(timeout, self.connect(to)).await;
        connected.map_err(|_| ExchangeError::Timeout(timeout))?.map(drop).map_err(ExchangeError::Connect)
    }

    pub(crate) async fn connect(&self, to: Callee<'_>) -> io::Result<MaybeTls<TcpStream>> {
        let stream = TcpStream::connect(to.addr).await?;
        stream.set_nodelay(true)?;
        match &self.identity {
            None => Ok(MaybeTls::Plain(stream)),
            Some(identity) => {
                Ok(MaybeTls::Tls(Box::new(identity.connect(&[to.name], &[b"http/1.1"], stream).await?)))
            }
        }
    }
}

async fn exchange<B>(
    IdleConn { stream, generation }: IdleConn,
    request: Request<B>,
    limit: usize,
) -> Result<ExchangeReply, hyper::Error>
where
    B: Body<Data = Bytes, Error = std::convert::Infallible> + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut connection = pin!(connection.without_shutdown());
    let mut parts = None;
    let (mut reply, reusable) = {
        let mut call = pin!(async move {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let closes = head.version == Version::HTTP_10 || has_close(&head.headers);
            let body = read(body, limit).await?;
            let reusable = body.is_some() && !closes;
            let reply = ExchangeReply { status: head.status, headers: head.headers, body, idle: None };
            Ok::<_, hyper::Error>((reply, reusable))
        });
        std::future::poll_fn(|context| {
            if parts.is_none()
                && let std::task::Poll::Ready(ended) = connection.as_mut().poll(context)
            {
                parts = Some(ended);
            }
            call.as_mut().poll(context)
        })
        .await?
    };
    // The sender is dropped, so hyper ends the connection and returns the socket.
    if reusable {
        let ended = match parts {
            Some(ended) => ended,
            None => connection.await,
        };
        let parts = ended.ok().filter(|parts| parts.read_buf.is_empty());
        reply.idle = parts.map(|parts| IdleConn { stream: parts.io.into_inner(), generation });
    }
    Ok(reply)
}

fn has_close(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONNECTION).iter();
    values.any(|value| value.as_bytes().to_ascii_lowercase().windows(5).any(|word| word == b"close"))
}

async fn read(body: hyper::body::Incoming, limit: usize) -> Result<Option<Bytes>, hyper::Error> {
    if body.size_hint().lower() > limit as u64 {
        return Ok(None); // by its Content-Length
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
    use std::collections::VecDeque;
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use http_body_util::Empty;
    use hubspoke_testkit::{ClosedPort, RawConn, TestServer};
    use parking_lot::Mutex;

    use super::*;

    fn request() -> Request<Empty<Bytes>> {
        Request::get("/heart-beat").header("host", "x").body(Empty::<Bytes>::new()).unwrap()
    }

    /// Answers each request with the next of these texts; an empty one closes the connection. Counts connections.
    async fn server(replies: Vec<&'static str>) -> (TestServer, Arc<AtomicUsize>) {
        let (replies, accepted) =
            (Arc::new(Mutex::new(VecDeque::from(replies))), Arc::<AtomicUsize>::default());
        let count = accepted.clone();
        let server = TestServer::script(move |mut conn: RawConn| {
            count.fetch_add(1, Relaxed);
            let replies = replies.clone();
            async move {
                while conn.request().await.is_some() {
                    let reply = replies.lock().pop_front().unwrap_or_default();
                    if reply.is_empty() {
                        break;
                    }
                    conn.write(reply).await;
                }
            }
        });
        (server.await, accepted)
    }

    async fn get(addr: SocketAddr, idle: Option<IdleConn>) -> Result<ExchangeReply, ExchangeError> {
        let addr = addr.to_string();
        let to = Callee { name: "log", addr: &addr };
        MemberDialer::default().send(to, idle, request, 16, Duration::from_millis(500)).await
    }

    #[tokio::test]
    async fn a_connection_is_reused() {
        let reply = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let (server, accepted) = server(vec![reply; 5]).await;
        let mut idle = None;
        for _ in 0..5 {
            let reply = get(server.addr, idle).await.unwrap();
            assert_eq!((reply.status, reply.body.as_deref()), (StatusCode::OK, Some(&b"ok"[..])));
            idle = reply.idle;
            assert!(idle.is_some());
        }
        assert_eq!(accepted.load(Relaxed), 1);
    }

    #[tokio::test]
    async fn a_connection_closed_meanwhile_is_replaced() {
        let good = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let (server, accepted) = server(vec![good, "", good]).await;
        let first = get(server.addr, None).await.unwrap();
        let second = get(server.addr, first.idle).await.unwrap();
        assert_eq!(second.status, StatusCode::OK);
        assert_eq!(accepted.load(Relaxed), 2);
    }

    #[tokio::test]
    async fn a_reply_that_ends_the_connection_prevents_its_reuse() {
        for (reply, body) in [
            ("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", Some(&b""[..])),
            ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", Some(&b""[..])),
            ("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n", None),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\ntrailing bytes", Some(&b""[..])),
        ] {
            let (server, _) = server(vec![reply; 2]).await;
            let got = get(server.addr, None).await.unwrap();
            assert_eq!((got.body.as_deref(), got.idle.is_none()), (body, true), "{reply}");
        }
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_not_read() {
        let long = "HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\n012345678901234567890123456789";
        let (server, _) = server(vec![long]).await;
        let reply = get(server.addr, None).await.unwrap();
        assert_eq!((reply.status, reply.body, reply.idle.is_none()), (StatusCode::OK, None, true));
    }

    #[test]
    fn local_shortages_are_told_apart_from_failures_of_members() {
        let connect = |errno: Errno| ExchangeError::Connect(io::Error::from(errno));
        for local in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL] {
            assert!(connect(local).is_local("127.0.0.1:1"), "{local}");
        }
        for remote in [Errno::CONNREFUSED, Errno::HOSTUNREACH, Errno::NETUNREACH, Errno::TIMEDOUT] {
            assert!(!connect(remote).is_local("127.0.0.1:1"), "{remote}");
        }
        assert!(!connect(Errno::ADDRNOTAVAIL).is_local("[2001:db8::1]:1"));
        assert!(!ExchangeError::Timeout(Duration::ZERO).is_local("127.0.0.1:1"));
    }

    #[tokio::test]
    async fn timeouts_refused_connections_and_invalid_replies_are_told_apart() {
        let silent = TestServer::script(|conn: RawConn| async move {
            let _conn = conn;
            std::future::pending().await
        });
        let timeout = get(silent.await.addr, None).await.unwrap_err();
        assert_eq!((timeout.kind(), timeout.reason().as_str()), ("timeout", "no answer within 500 ms"));
        let refused = get(ClosedPort::new().addr(), None).await.unwrap_err();
        assert_eq!(refused.kind(), "connect");
        assert!(refused.reason().starts_with("can't connect: Connection refused"), "{}", refused.reason());
        let (server, _) = server(vec!["SSH-2.0-nonsense\r\n"]).await;
        let invalid = get(server.addr, None).await.unwrap_err();
        assert_eq!(invalid.kind(), "broken_answer");
        assert!(invalid.reason().starts_with("no valid response: "), "{}", invalid.reason());
    }
}
