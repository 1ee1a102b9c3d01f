//! Upgrades: WebSocket and whatever else begins with `101 Switching Protocols`. After the instance's 101 the bytes
//! pass unread in both directions, without any timeout, until one side ends or the gateway does.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::attempt::{self, Exchange, Failed, Stage};
use super::record::Record;
use super::reply::Source;
use crate::retry::Reached;
use crate::upstream::{InFlight, Instance, connect};

/// Sends a request that asks for another protocol, on a connection of its own. Where the instance agrees, the two
/// connections become one tunnel; where not, its reply is passed on like any other.
pub(super) async fn open(
    stage: &mut Stage<'_>,
    instance: &Arc<Instance>,
    now: Instant,
    client: &mut Option<OnUpgrade>,
    record: &mut Record,
) -> Result<Box<Exchange>, Failed> {
    let made = connect::h1(instance, stage.settings.connect).await;
    let conn = made.map_err(|cause| Failed { cause, reached: Reached::Nothing, stale: false })?;
    record.connect = now.elapsed();
    let mut exchange = attempt::exchange(stage, instance, conn, now + record.connect, true).await?;
    if exchange.response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let (Some(client), Source::H1(conn)) = (client.take(), std::mem::take(&mut exchange.source))
    {
        let (stream, first) = conn.into_switched();
        stage.peer.upgrade(Box::pin(join(client, stream, first, instance.begin())));
    }
    Ok(exchange)
}

/// `first` is what the instance has sent behind its 101.
async fn join(client: OnUpgrade, mut instance: TcpStream, first: Bytes, _in_flight: InFlight) {
    let joined = async {
        let mut client = TokioIo::new(client.await.map_err(std::io::Error::other)?);
        client.write_all(&first).await?;
        tokio::io::copy_bidirectional(&mut client, &mut instance).await
    };
    if let Err(error) = joined.await {
        tracing::debug!(error = &error as &dyn std::error::Error, "a tunnel broke");
    }
}
