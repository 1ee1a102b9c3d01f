//! The stream below a client's connection: TCP, in clear text or behind TLS.

use hubspoke_http1::RequestBody;
use hubspoke_tls::TlsSocket;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::client_body::ClientBody;
use crate::client_conn::ResetIfClosed;

/// A client's socket.
pub(crate) trait ClientSocket: AsyncRead + AsyncWrite + Unpin + Send + Sized + 'static {
    /// Whether the peer is told the end of the stream by TLS, too.
    const IS_TLS: bool;
    type Read: AsyncRead + Unpin + Send;
    type Write: AsyncWrite + ResetIfClosed + Unpin + Send;

    fn into_halves(self) -> (Self::Read, Self::Write);
    fn unsplit(read: Self::Read, write: Self::Write) -> Option<Self>;
    /// Drops the write half without telling the client that nothing follows.
    fn cut_off(write: Self::Write);
    fn body(body: RequestBody<Self::Read>) -> ClientBody;
}

impl ClientSocket for TcpStream {
    const IS_TLS: bool = false;
    type Read = OwnedReadHalf;
    type Write = OwnedWriteHalf;

    fn into_halves(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        self.into_split()
    }

    fn unsplit(read: OwnedReadHalf, write: OwnedWriteHalf) -> Option<Self> {
        read.reunite(write).ok()
    }

    fn cut_off(write: OwnedWriteHalf) {
        write.forget(); // its FIN would make the response look complete
    }

    fn body(body: RequestBody<OwnedReadHalf>) -> ClientBody {
        ClientBody::H1(body)
    }
}

impl ClientSocket for TlsSocket<TcpStream> {
    const IS_TLS: bool = true;
    type Read = tokio::io::ReadHalf<Self>;
    type Write = tokio::io::WriteHalf<Self>;

    fn into_halves(self) -> (Self::Read, Self::Write) {
        tokio::io::split(self)
    }

    fn unsplit(read: Self::Read, write: Self::Write) -> Option<Self> {
        read.is_pair_of(&write).then(|| read.unsplit(write))
    }

    fn cut_off(write: Self::Write) {
        drop(write); // no close_notify: clients tell that from an end
    }

    fn body(body: RequestBody<Self::Read>) -> ClientBody {
        ClientBody::Tls(body)
    }
}
