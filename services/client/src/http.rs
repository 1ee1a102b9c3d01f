//! The HTTP client of everything inside the platform: in clear text or, if the process has an identity, over mutual TLS.
//!
//! Requests are made with reqwest either way. Over TLS they are sent by hyper's client with a connector of our own, which
//! accepts a server by the name in its certificate, not by its address.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hubspoke_tls::{Identity, TlsSocket};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::Service;

use crate::token::Token;

/// The HTTP client could not be created: out of file descriptors or memory, most likely.
#[derive(Debug, thiserror::Error)]
#[error("can't create an HTTP client")]
pub struct HttpClientError(#[source] reqwest::Error);

/// What a process shows to others: a token, an identity, or both.
#[derive(Debug, Clone, Default)]
pub struct MemberCredentials {
    /// Sent with each request.
    pub token: Option<Token>,
    /// With it, connections are mutual TLS.
    pub identity: Option<Arc<Identity>>,
}

/// Timeouts of a client, and what it keeps.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct HttpOptions {
    /// The longest time to connect, the handshake included.
    pub connect_timeout: Duration,
    /// How long an idle connection is kept; zero keeps none.
    pub idle_timeout: Duration,
}

impl HttpOptions {
    /// With this time to connect; idle connections are kept for 30 s.
    pub const fn new(connect_timeout: Duration) -> Self {
        Self { connect_timeout, idle_timeout: Duration::from_secs(30) }
    }

    /// Idle connections are kept for so long.
    #[must_use]
    pub const fn with_idle_timeout(self, idle_timeout: Duration) -> Self {
        Self { idle_timeout, ..self }
    }
}

/// A client for the instances of one service, or of several. It connects to them directly, never through a proxy, and
/// follows no redirects. Clones share connections.
#[derive(Debug, Clone)]
pub struct HttpClient {
    plain: reqwest::Client,
    tls: Option<Client<TlsConnector, reqwest::Body>>,
}

/// Why a request got no response.
#[derive(Debug)]
pub enum SendError {
    /// In clear text.
    Plain(reqwest::Error),
    /// Over TLS.
    Tls(legacy::Error),
    /// The request's own timeout is over.
    TimedOut,
}

impl HttpClient {
    /// A client. With an identity, it speaks TLS with servers that have one of `names`.
    ///
    /// # Errors
    /// [`HttpClientError`].
    pub fn new(
        names: &[&str],
        identity: Option<&Arc<Identity>>,
        options: HttpOptions,
    ) -> Result<Self, HttpClientError> {
        let HttpOptions { connect_timeout, idle_timeout } = options;
        let plain = reqwest::Client::builder().no_proxy().redirect(Policy::none());
        let plain = plain.connect_timeout(connect_timeout).pool_idle_timeout(idle_timeout);
        let max_idle = if idle_timeout.is_zero() { 0 } else { usize::MAX };
        let plain = plain.pool_max_idle_per_host(max_idle).build().map_err(HttpClientError)?;
        let tls = identity.map(|identity| {
            let names: Arc<[String]> = names.iter().map(|name| (*name).to_owned()).collect();
            let connector = TlsConnector { identity: identity.clone(), names, connect_timeout };
            Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(idle_timeout)
                .pool_max_idle_per_host(max_idle)
                .build(connector)
        });
        Ok(Self { plain, tls })
    }

    /// `http`, or `https` if the client speaks TLS.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Begins a request; [`Self::send`] sends it.
    pub fn request(&self, method: Method, url: impl reqwest::IntoUrl) -> RequestBuilder {
        self.plain.request(method, url)
    }

    /// Begins a GET.
    pub fn get(&self, url: impl reqwest::IntoUrl) -> RequestBuilder {
        self.request(Method::GET, url)
    }

    /// Sends a request, over TLS if its URL begins with `https`, and waits for the head of the response. Over TLS, the request's timeout ends with that, so whoever
    /// reads the body has a deadline of their own.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, SendError> {
        let request = request.build()?;
        let Some(tls) = self.tls.as_ref().filter(|_| request.url().scheme() == "https") else {
            return Ok(self.plain.execute(request).await?);
        };
        let limit = request.timeout().copied();
        let response = tls.request(http::Request::<reqwest::Body>::try_from(request)?);
        let response = match limit {
            Some(limit) => timeout(limit, response).await.map_err(|_| SendError::TimedOut)?,
            None => response.await,
        };
        Ok(response.map_err(SendError::Tls)?.map(reqwest::Body::wrap).into())
    }
}

impl SendError {
    /// Whether there was no connection.
    pub fn is_connect(&self) -> bool {
        match self {
            Self::Plain(error) => error.is_connect(),
            Self::Tls(error) => error.is_connect(),
            Self::TimedOut => false,
        }
    }

    /// Whether a time was over.
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Plain(error) => error.is_timeout(),
            Self::Tls(error) => std::iter::successors(error.source(), |&error| error.source())
                .filter_map(|error| error.downcast_ref::<io::Error>())
                .any(|error| error.kind() == io::ErrorKind::TimedOut),
            Self::TimedOut => true,
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::TimedOut => f.write_str("no answer in time"),
        }
    }
}

/// As that of the error itself.
impl Error for SendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Plain(error) => error.source(),
            Self::Tls(error) => error.source(),
            Self::TimedOut => None,
        }
    }
}

impl From<reqwest::Error> for SendError {
    fn from(error: reqwest::Error) -> Self {
        Self::Plain(error)
    }
}

/// Opens connections over mutual TLS.
#[derive(Debug, Clone)]
struct TlsConnector {
    identity: Arc<Identity>,
    names: Arc<[String]>,
    connect_timeout: Duration,
}

impl Service<Uri> for TlsConnector {
    type Response = TokioIo<TlsConnection>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { identity, names, connect_timeout } = self.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
            let port = uri.port_u16().unwrap_or(443);
            let connecting = async {
                let stream = TcpStream::connect((host, port)).await?;
                stream.set_nodelay(true)?;
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                identity.connect(&names, &[], stream).await
            };
            let connected = timeout(connect_timeout, connecting).await;
            let stream = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            Ok(TokioIo::new(TlsConnection(stream)))
        })
    }
}

/// A connection over mutual TLS.
#[derive(Debug)]
struct TlsConnection(TlsSocket<TcpStream>);

impl Connection for TlsConnection {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A status with its reason phrase: `503 Service Unavailable`.
pub(crate) fn status_line(status: u16) -> impl std::fmt::Display {
    let reason = reqwest::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    std::fmt::from_fn(move |f| match reason {
        Some(reason) => write!(f, "{status} {reason}"),
        None => write!(f, "{status} <unknown status code>"),
    })
}
