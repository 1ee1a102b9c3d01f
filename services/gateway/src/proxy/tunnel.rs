//! Upgrades: WebSocket and whatever else begins with `101 Switching Protocols`. After the instance's 101 the bytes
//! pass unread in both directions, without any timeout, until one side ends or the gateway does.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::attempt::{Exchange, Failed, Stage};
use super::record::Record;
use crate::error::Cause;
use crate::retry::Reached;
use crate::upstream::{InFlight, Instance, connect};

/// Sends a request that asks for another protocol, on a connection of its own. Where the instance agrees, the two
/// connections become one tunnel; where not, its reply is passed on like any other.
pub(super) async fn open(
    stage: &mut Stage<'_>,
    instance: &Arc<Instance>,
    client: &mut Option<OnUpgrade>,
    record: &mut Record,
) -> Result<Box<Exchange>, Failed> {
    let failed = |cause, reached| Failed { cause, reached, stale: false };
    let began = Instant::now();
    let made = connect::h1(instance, stage.settings.connect).await;
    let (mut sender, connection, _) = made.map_err(|cause| failed(cause, Reached::Nothing))?;
    record.connect = began.elapsed();
    let Some(outgoing) = stage.take() else { return Err(failed(Cause::ConnectFailed, Reached::Nothing)) };
    // Ends with the tunnel or the reply, or with this worker's event loop.
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(error = &error as &dyn std::error::Error, "a connection for an upgrade broke");
        }
    });
    let sending = sender.send_request(outgoing.into_h1());
    let mut response = match tokio::time::timeout(stage.settings.first_byte, sending).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => return Err(failed(Cause::ConnectionBroken, Reached::Instance)),
        Err(_) => return Err(failed(Cause::ReplyTimeout, Reached::Instance)),
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(client) = client.take()
    {
        let instance_side = hyper::upgrade::on(&mut response);
        stage.peer.upgrade(Box::pin(join(client, instance_side, instance.begin())));
    }
    Ok(Box::new(Exchange::new(stage, instance, response, None)))
}

async fn join(client: OnUpgrade, instance: OnUpgrade, _in_flight: InFlight) {
    let (client, instance) = match tokio::try_join!(client, instance) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "an upgrade came to nothing");
            return;
        }
    };
    let (mut client, mut instance) = (TokioIo::new(client), TokioIo::new(instance));
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut instance).await {
        tracing::debug!(error = &error as &dyn std::error::Error, "a tunnel broke");
    }
}
