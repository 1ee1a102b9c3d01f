//! Upgrades: WebSocket and anything else that begins with `101 Switching Protocols`. After the instance's 101, bytes
//! are copied in both directions, unread and without a timeout, until one side closes, the instance has been gone for a
//! while, or the gateway stops.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::clients::RequestSlot;
use crate::upstream::InFlightGuard;

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
    pub(crate) async fn join(mut self, mut client: TcpStream, first: Bytes) {
        let joined = async {
            self.instance.write_all(&first).await?;
            client.write_all(&self.first).await?;
            tokio::io::copy_bidirectional(&mut client, &mut self.instance).await
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
