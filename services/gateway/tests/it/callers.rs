//! Clients of both protocols, for tests that hold over each.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::support::*;

/// A client with one connection to the gateway.
pub(crate) enum Caller {
    H1(http1::SendRequest<Full<Bytes>>),
    H2(http2::SendRequest<Full<Bytes>>),
}

/// A response that was read to its end.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Caller {
    /// One that speaks HTTP/1, and one that speaks HTTP/2.
    pub(crate) async fn both(gateway: &Gateway, tasks: &mut JoinSet<()>) -> [Self; 2] {
        let connect = async || TokioIo::new(TcpStream::connect(gateway.addr).await.unwrap());
        let (h1, connection) = http1::handshake(connect().await).await.unwrap();
        tasks.spawn(async move { drop(connection.await) });
        let (h2, connection) = http2::handshake(TokioExecutor::new(), connect().await).await.unwrap();
        tasks.spawn(async move { drop(connection.await) });
        [Self::H1(h1), Self::H2(h2)]
    }

    pub(crate) async fn send(
        &mut self,
        method: &str,
        url: &str,
        fields: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        self.try_send(method, url, fields, body).await.unwrap()
    }

    /// The same for a response that may break off before its head is read.
    pub(crate) async fn try_send(
        &mut self,
        method: &str,
        url: &str,
        fields: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> hyper::Result<Response<Incoming>> {
        let uri: Uri = url.parse().unwrap();
        let mut request = Request::builder().method(method);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        match self {
            Self::H1(sender) => {
                request = request.header("host", uri.authority().unwrap().as_str());
                let request = request.uri(uri.path_and_query().unwrap().as_str());
                sender.ready().await.unwrap();
                sender.send_request(request.body(Full::new(body.into())).unwrap()).await
            }
            Self::H2(sender) => {
                sender.send_request(request.uri(uri).body(Full::new(body.into())).unwrap()).await
            }
        }
    }

    pub(crate) async fn call(&mut self, method: &str, url: &str, fields: &[(&str, &str)]) -> Answer {
        read(self.send(method, url, fields, "").await).await
    }
}

pub(crate) async fn read(response: Response<Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}
