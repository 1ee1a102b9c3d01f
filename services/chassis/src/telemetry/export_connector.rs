//! Connections to a collector, in clear text or with TLS.

use std::error::Error;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tower::Service;

use super::export_tls::TlsFiles;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Connects to a collector.
#[derive(Debug, Clone)]
pub(super) struct ExportConnector {
    tcp: HttpConnector,
    tls: Option<TlsFiles>,
    /// What is spoken over TLS, as ALPN names it.
    protocol: &'static [u8],
}

impl ExportConnector {
    pub(super) fn new(tls: Option<TlsFiles>, protocol: &'static [u8]) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        Self { tcp, tls, protocol }
    }
}

type ConnectFuture = Pin<Box<dyn Future<Output = Result<ExportStream, Box<dyn Error + Send + Sync>>> + Send>>;

impl Service<Uri> for ExportConnector {
    type Response = ExportStream;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = ConnectFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (tls, protocol) = (self.tls.clone(), self.protocol);
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let tcp = self.tcp.call(uri);
        Box::pin(async move {
            let tcp = tcp.await?.into_inner();
            let Some(files) = tls else { return Ok(ExportStream(TokioIo::new(Either::Left(tcp)))) };
            let config = tokio::task::spawn_blocking(move || files.client_config(protocol)).await??;
            let connector = TlsConnector::from(Arc::new(config));
            let stream = connector.connect(ServerName::try_from(host)?, tcp).await?;
            Ok(ExportStream(TokioIo::new(Either::Right(stream))))
        })
    }
}

/// A connection.
pub(super) struct ExportStream(TokioIo<Either<TcpStream, TlsStream<TcpStream>>>);

impl Connection for ExportStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for ExportStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for ExportStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}
