//! `GET /log/all`: the entries of all log instances as one stream, merged by time.
//!
//! This instance reads its own files and asks its peers for theirs, with the same filters; entries come out by
//! time, and within an instance by number. An entry that a sender's retry left on two instances is given once, by
//! its key. Peers that do not answer are named in `Hub-Log-Missing`; one that breaks off later breaks the reply
//! off, so that nobody takes a part for the whole. Memory is constant: a buffer for each peer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use hubspoke_protocol::ServiceInfo;
use jiff::Timestamp;
use tokio::time::timeout;

use self::merge::Merge;
use super::App;
use super::read::{NDJSON, Pieces, plain, start};
use crate::error::ApiError;
use crate::query::Query;

mod merge;

/// Header that names the peers whose entries are not in the reply.
const HUB_LOG_MISSING: &str = "hub-log-missing";
/// A peer must begin to answer within this time.
const BEGIN: Duration = Duration::from_secs(2);
/// A peer must go on within this time; it may be searching a large file.
const GO_ON: Duration = Duration::from_secs(60);
/// Lines are passed on in pieces of about this size.
const PIECE: usize = 64 << 10;

pub(super) async fn read(
    State(app): State<Arc<App>>,
    RawQuery(text): RawQuery,
) -> Result<Response, ApiError> {
    let query = Query::parse(text.as_deref().unwrap_or(""), Timestamp::now())?;
    let (order, limit) = (query.order, query.limit);
    let path = format!("/{}?{}", app.name, query.absolute(text.as_deref().unwrap_or("")));
    let range = query.seq_range(app.store.instance());
    let own = Lines::new(Source::Own(start(&app, query, range, plain)?));
    let view = app.directory.view();
    let all = view.instances(&app.name).unwrap_or_default();
    let peers = all.iter().filter(|peer| peer.id() != &*app.id);
    let answers = join_all(peers.map(|peer| ask(&app.http, peer, &path))).await;
    let mut missing = Vec::new();
    let mut streams = vec![own];
    for answer in answers {
        match answer {
            Ok(lines) => streams.push(lines),
            Err(addr) => missing.push(addr),
        }
    }
    let merge = Merge::new(streams, order, limit);
    let body = Body::from_stream(futures_util::stream::try_unfold(merge, piece));
    let mut reply = ([NDJSON], body).into_response();
    if !missing.is_empty()
        && let Ok(missing) = HeaderValue::try_from(missing.join(", "))
    {
        reply.headers_mut().insert(HUB_LOG_MISSING, missing);
    }
    Ok(reply)
}

/// The peer's entries, or its address where it does not answer.
async fn ask(http: &reqwest::Client, peer: &ServiceInfo, path: &str) -> Result<Lines, String> {
    let request = http.get(format!("http://{}{path}", peer.addr)).send();
    let failed = |error: &dyn std::fmt::Display| {
        tracing::warn!(instance = peer.id(), %error, "a peer's entries are missing from a reply");
        peer.addr.clone()
    };
    match timeout(BEGIN, request).await {
        Ok(Ok(reply)) if reply.status().is_success() => Ok(Lines::new(Source::Peer(reply))),
        Ok(Ok(reply)) => Err(failed(&reply.status())),
        Ok(Err(error)) => Err(failed(&error)),
        Err(late) => Err(failed(&late)),
    }
}

async fn piece(mut merge: Merge<Lines>) -> io::Result<Option<(Bytes, Merge<Lines>)>> {
    let mut piece = Vec::new();
    while piece.len() < PIECE {
        let Some(line) = merge.next().await? else { break };
        piece.extend_from_slice(&line);
        piece.push(b'\n');
    }
    Ok((!piece.is_empty()).then(|| (piece.into(), merge)))
}

enum Source {
    Own(Pieces),
    Peer(reqwest::Response),
}

/// Lines from a source that gives pieces.
struct Lines {
    source: Source,
    buf: Vec<u8>,
    /// How much of `buf` is used up.
    at: usize,
}

impl Lines {
    fn new(source: Source) -> Self {
        Self { source, buf: Vec::new(), at: 0 }
    }
}

impl merge::Lines for Lines {
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buf[self.at..]) {
                let line = self.buf[self.at..self.at + end].to_vec();
                self.at += end + 1;
                return Ok(Some(line));
            }
            self.buf.drain(..self.at);
            self.at = 0;
            let piece = match &mut self.source {
                Source::Own(pieces) => pieces.next().await.transpose()?,
                Source::Peer(reply) => timeout(GO_ON, reply.chunk())
                    .await?
                    .map_err(|error| io::Error::other(error.without_url()))?,
            };
            match piece {
                Some(piece) => self.buf.extend_from_slice(&piece),
                None if self.buf.is_empty() => return Ok(None),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}
