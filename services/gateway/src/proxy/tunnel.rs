//! Upgrades: WebSocket and anything else that begins with `101 Switching Protocols`. After the instance's 101, bytes
//! are copied in both directions, unread and without a timeout, until one side closes, the instance has been gone for a
//! while, or the gateway stops.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
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
    pub(super) instance: TcpStream,
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
    pub(crate) async fn join<S: ClientSocket>(mut self, client: S, first: Bytes, memory: &Memory) {
        let (read_client, write_client) = client.into_halves();
        let (read_instance, write_instance) = self.instance.split();
        let joined = async {
            tokio::try_join!(
                copy(first, read_client, write_instance, memory),
                copy(self.first, read_instance, write_client, memory),
            )
        };
        let registration = self.in_flight.instance();
        let ended = tokio::select! {
            ended = joined => ended.map(drop),
            () = registration.gone_for(self.removed) => Ok(()),
        };
        if let Err(error) = ended {
            let (instance, error) = (&registration.id, &error as &dyn std::error::Error);
            tracing::debug!(%instance, error, "an upgraded connection broke");
        }
    }
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
