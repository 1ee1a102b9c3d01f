//! `GET /log/all`: the entries of all log instances as one stream, merged by time.
//!
//! This instance reads its own files and asks its siblings for theirs, with the same filters. Entries come by
//! time, and within an instance by sequence number. An entry that a retry left on two instances comes once:
//! copies have the same sender, key and content. Siblings that don't answer are named in `Hub-Log-Missing`. If one
//! fails later, the reply is aborted, so that no client mistakes a part for the whole. Memory is constant: a buffer
//! per sibling ([`lines`]).

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use hubspoke_chassis::server::ConnectionHandle;
use hubspoke_protocol::ServiceInfo;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use self::lines::{LineReader, LineSource, SIBLING_MEMORY};
use self::merge::TimeMerge;
use super::admission::AdmittedQuery;
use super::app::LogApp;
use super::request::admit;
use super::stream::{NDJSON, body, last_line, query_files};
use crate::error::ApiError;

mod lines;
mod merge;

/// Header that names the siblings whose entries are missing from the reply.
const HUB_LOG_MISSING: &str = "hub-log-missing";
/// A sibling must begin its reply within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// Siblings that are asked; any others are named as missing.
const MAX_SIBLINGS: usize = 16;
/// Approximate size of a chunk of the reply, in bytes.
const CHUNK: usize = 64 << 10;

pub(super) async fn read(
    State(app): State<Arc<LogApp>>,
    connection: Option<Extension<ConnectionHandle>>,
    headers: HeaderMap,
    RawQuery(text): RawQuery,
) -> Result<Response, ApiError> {
    app.require_reader(&headers, connection.as_deref()).await?;
    let text = text.as_deref().unwrap_or("");
    let (query, admitted) = admit(&app, text).await?;
    let (order, limit) = (query.order, query.limit);
    let path = format!("/{}?{}", app.name, query.absolute(text));
    let own = query_files(&app, Arc::clone(&admitted), query);
    let view = app.directory.view();
    let instances = view.instances(&app.name).unwrap_or_default();
    let mut siblings = instances.iter().filter(|instance| instance.id() != &*app.id);
    let asked: Vec<_> = siblings.by_ref().take(MAX_SIBLINGS).collect();
    let bytes = u32::try_from(asked.len() * SIBLING_MEMORY).unwrap_or(u32::MAX);
    let memory = Arc::clone(&app.readers).try_acquire_many_owned(bytes).map_err(|_| ApiError::Busy)?;
    let replies = join_all(asked.into_iter().map(|sibling| request(&app, sibling, &path)));
    let (own, replies) = tokio::join!(own.begin(), replies);
    let mut missing: Vec<_> = siblings.map(|sibling| sibling.addr.clone()).collect();
    let mut streams = vec![LineReader::new(LineSource::Files(own?))];
    for reply in replies {
        match reply {
            Ok(lines) => streams.push(lines),
            Err(addr) => missing.push(addr),
        }
    }
    let merge = Merge { entries: TimeMerge::new(streams, order, limit), admitted, _memory: memory };
    let chunks = futures_util::stream::try_unfold(merge, next_chunk);
    let mut reply = ([NDJSON], body(chunks, last_line)).into_response();
    if !missing.is_empty()
        && let Ok(missing) = HeaderValue::try_from(missing.join(", "))
    {
        reply.headers_mut().insert(HUB_LOG_MISSING, missing);
    }
    Ok(reply)
}

/// The sibling's entries, or its address if it does not answer.
async fn request(app: &LogApp, sibling: &ServiceInfo, path: &str) -> Result<LineReader, String> {
    let reply = async {
        let mut request = app.http.get(format!("{}://{}{path}", app.http.scheme(), sibling.addr));
        if let Some(token) = app.access.own_token() {
            request = request.bearer_auth(token.get());
        }
        let reply = timeout(HEAD_TIMEOUT, app.http.send(request)).await??;
        let status = reply.status();
        if status.is_success() {
            Ok(reply)
        } else {
            Err(Box::<dyn Error + Send + Sync>::from(status.to_string()))
        }
    };
    match reply.await {
        Ok(reply) => {
            let (addr, memory) = (sibling.addr.clone(), Arc::clone(&app.readers));
            Ok(LineReader::new(LineSource::Sibling { reply, addr, memory }))
        }
        Err(error) => {
            let (instance, addr, error) = (sibling.id(), &*sibling.addr, &*error as &dyn Error);
            tracing::warn!(
                instance,
                addr,
                error,
                "a log instance failed; its entries are missing from a reply"
            );
            Err(sibling.addr.clone())
        }
    }
}

/// A reply. It keeps the place of its query: what siblings send may have no end.
struct Merge {
    entries: TimeMerge<LineReader>,
    admitted: Arc<AdmittedQuery>,
    _memory: OwnedSemaphorePermit,
}

async fn next_chunk(mut merge: Merge) -> io::Result<Option<(Bytes, Merge)>> {
    let mut chunk = Vec::new();
    while chunk.len() < CHUNK {
        let line = tokio::select! {
            line = merge.entries.next() => line?,
            () = merge.admitted.displaced().cancelled() => return Err(io::Error::other(ApiError::Displaced)),
        };
        let Some(line) = line else { break };
        chunk.extend_from_slice(&line);
        chunk.push(b'\n');
    }
    Ok((!chunk.is_empty()).then(|| (chunk.into(), merge)))
}

#[cfg(test)]
mod tests;
