//! Upgrades: WebSocket and anything else that begins with `101 Switching Protocols`. After the instance's 101, bytes
//! are copied in both directions, unread and without a timeout, until one side closes, the instance has been gone for a
//! while, or the gateway stops.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use hubspoke_tls::MaybeTls;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client_socket::ClientSocket;
use crate::clients::RequestSlot;
use crate::memory::Memory;
use crate::upstream::InFlightGuard;

/// The most that one read takes.
const MAX_READ: usize = 64 << 10;

/// An instance's end of an upgraded connection. It travels to the client's connection as the content of the 101.
pub(crate) struct Tunnel {
    pub(super) instance: MaybeTls<TcpStream>,
    /// How long it may go on once the instance is no longer registered.
    pub(super) removed: Duration,
    /// Bytes that followed its 101.
    pub(super) first: Bytes,
    /// The tunnel counts as a request in flight.
    pub(super) in_flight: InFlightGuard,
    /// It counts among its client's requests too.
    pub(super) _slot: Option<RequestSlot>,
}

impl Tunnel {
    /// Copies until one side closes. `first` has already been read from the client.
    pub(crate) async fn join<S: ClientSocket>(self, client: S, first: Bytes, memory: &Memory) {
        let Self { instance, removed, first: from_instance, in_flight, _slot } = self;
        let first = [first, from_instance];
        let joined = async {
            match instance {
                MaybeTls::Plain(mut stream) => copy_both(client, stream.split(), first, memory).await,
                MaybeTls::Tls(stream) => copy_both(client, tokio::io::split(stream), first, memory).await,
            }
        };
        let registration = in_flight.instance();
        let ended = tokio::select! {
            ended = joined => ended,
            () = registration.gone_for(removed) => Ok(()),
        };
        if let Err(error) = ended {
            let (instance, error) = (&registration.id, &error as &dyn std::error::Error);
            tracing::debug!(%instance, error, "an upgraded connection broke");
        }
    }
}

/// Copies in both directions. `first` is what has been read already, from the client and from the instance.
async fn copy_both<S: ClientSocket>(
    client: S,
    (read_instance, write_instance): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    [from_client, from_instance]: [Bytes; 2],
    memory: &Memory,
) -> io::Result<()> {
    let (read_client, write_client) = client.into_halves();
    tokio::try_join!(
        copy(from_client, read_client, write_instance, memory),
        copy(from_instance, read_instance, write_client, memory),
    )?;
    Ok(())
}

/// Writes `bytes`, then what is read, until the end, and passes that on. While neither side has anything to say, it keeps
/// no buffer.
async fn copy(
    mut bytes: Bytes,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    memory: &Memory,
) -> io::Result<()> {
    let unsent = memory.buffers.charge();
    loop {
        while !bytes.is_empty() {
            let written = poll_fn(|cx| {
                let written = Pin::new(&mut to).poll_write(cx, &bytes);
                unsent.waits(if written.is_pending() { bytes.len() } else { 0 });
                written
            });
            match written.await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                // Split off: bytes that are advanced to their end still keep their buffer.
                written => drop(bytes.split_to(written)),
            }
        }
        bytes = poll_fn(|cx| hubspoke_http1::poll_read(&mut from, cx, MAX_READ)).await?;
        if bytes.is_empty() {
            return to.shutdown().await;
        }
    }
}
