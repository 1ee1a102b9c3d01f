//! Upgrades: WebSocket and whatever else begins with `101 Switching Protocols`. After the instance's 101 the bytes
//! pass unread in both directions, without any timeout, until one side ends or the gateway does.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::attempt::{self, Exchange, Failed, Stage};
use super::record::Record;
use super::reply::Source;
use crate::retry::Reached;
use crate::upstream::{InFlightGuard, Instance, connect};

/// An instance's end of an upgraded connection.
pub(crate) struct Tunnel {
    instance: TcpStream,
    /// What it has sent behind its 101.
    first: Bytes,
    _in_flight: InFlightGuard,
}

/// Sends a request that asks for another protocol, on a connection of its own. Where the instance agrees, the client's
/// connection goes on with a tunnel; where not, its reply is passed on like any other.
pub(super) async fn open(
    stage: &mut Stage,
    instance: &Arc<Instance>,
    now: Instant,
    record: &mut Record,
) -> Result<Box<Exchange>, Failed> {
    let made = connect::h1(instance, stage.settings.connect).await;
    let conn = made.map_err(|cause| Failed { cause, reached: Reached::Nothing, stale: false })?;
    record.connect = now.elapsed();
    let mut exchange = attempt::exchange(stage, instance, conn, now + record.connect, true).await?;
    if exchange.response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Source::H1(conn) = std::mem::take(&mut exchange.source)
    {
        let (stream, first) = conn.into_switched();
        stage.peer.upgrade(Tunnel { instance: stream, first, _in_flight: instance.begin() });
    }
    Ok(exchange)
}

impl Tunnel {
    /// Joins it to the client's end, where `first` was read already.
    pub(crate) async fn join(mut self, mut client: TcpStream, first: Bytes) {
        let joined = async {
            self.instance.write_all(&first).await?;
            client.write_all(&self.first).await?;
            tokio::io::copy_bidirectional(&mut client, &mut self.instance).await
        };
        if let Err(error) = joined.await {
            tracing::debug!(error = &error as &dyn std::error::Error, "a tunnel broke");
        }
    }
}
