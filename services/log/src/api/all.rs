//! `GET /log/all`: the entries of all log instances as one stream, merged by time.
//!
//! This instance reads its own files and asks its siblings for theirs, with the same filters. Entries come by
//! time, and within an instance by sequence number. An entry that a retry left on two instances comes once,
//! by its key. Siblings that don't answer are named in `Hub-Log-Missing`. If one fails later, the reply is
//! aborted, so that no client mistakes a part for the whole. Memory is constant: a buffer per sibling.

use std::error::Error;
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

use self::merge::{EntryLines, TimeMerge};
use super::app::LogApp;
use super::stream::{FileStream, NDJSON, query_files};
use crate::error::ApiError;
use crate::query::Query;

mod merge;

/// Header that names the siblings whose entries are missing from the reply.
const HUB_LOG_MISSING: &str = "hub-log-missing";
/// A sibling must begin its reply within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// A sibling must continue its reply within this time; it may be searching a large file.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(60);
/// Approximate size of a chunk of the reply, in bytes.
const CHUNK: usize = 64 << 10;

pub(super) async fn read(
    State(app): State<Arc<LogApp>>,
    RawQuery(text): RawQuery,
) -> Result<Response, ApiError> {
    let text = text.as_deref().unwrap_or("");
    let query = Query::parse(text, Timestamp::now())?;
    let (order, limit) = (query.order, query.limit);
    let path = format!("/{}?{}", app.name, query.absolute(text));
    let own = LineReader::new(LineSource::Files(query_files(&app, query)?));
    let view = app.directory.view();
    let instances = view.instances(&app.name).unwrap_or_default();
    let siblings = instances.iter().filter(|instance| instance.id() != &*app.id);
    let replies = join_all(siblings.map(|sibling| request(&app.http, sibling, &path))).await;
    let mut missing = Vec::new();
    let mut streams = vec![own];
    for reply in replies {
        match reply {
            Ok(lines) => streams.push(lines),
            Err(addr) => missing.push(addr),
        }
    }
    let merge = TimeMerge::new(streams, order, limit);
    let body = Body::from_stream(futures_util::stream::try_unfold(merge, next_chunk));
    let mut reply = ([NDJSON], body).into_response();
    if !missing.is_empty()
        && let Ok(missing) = HeaderValue::try_from(missing.join(", "))
    {
        reply.headers_mut().insert(HUB_LOG_MISSING, missing);
    }
    Ok(reply)
}

/// The sibling's entries, or its address if it does not answer.
async fn request(http: &reqwest::Client, sibling: &ServiceInfo, path: &str) -> Result<LineReader, String> {
    let reply = async {
        let reply = http.get(format!("http://{}{path}", sibling.addr)).send();
        let reply = timeout(HEAD_TIMEOUT, reply).await??;
        let status = reply.status();
        if status.is_success() {
            Ok(reply)
        } else {
            Err(Box::<dyn Error + Send + Sync>::from(status.to_string()))
        }
    };
    match reply.await {
        Ok(reply) => Ok(LineReader::new(LineSource::Sibling(reply))),
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

async fn next_chunk(mut merge: TimeMerge<LineReader>) -> io::Result<Option<(Bytes, TimeMerge<LineReader>)>> {
    let mut chunk = Vec::new();
    while chunk.len() < CHUNK {
        let Some(line) = merge.next().await? else { break };
        chunk.extend_from_slice(&line);
        chunk.push(b'\n');
    }
    Ok((!chunk.is_empty()).then(|| (chunk.into(), merge)))
}

enum LineSource {
    Files(FileStream),
    Sibling(reqwest::Response),
}

/// Splits the chunks of a source into lines.
struct LineReader {
    source: LineSource,
    buf: Vec<u8>,
    /// How much of `buf` is consumed.
    at: usize,
}

impl LineReader {
    fn new(source: LineSource) -> Self {
        Self { source, buf: Vec::new(), at: 0 }
    }
}

impl EntryLines for LineReader {
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buf[self.at..]) {
                let line = self.buf[self.at..self.at + end].to_vec();
                self.at += end + 1;
                return Ok(Some(line));
            }
            self.buf.drain(..self.at);
            self.at = 0;
            let chunk = match &mut self.source {
                LineSource::Files(stream) => stream.next().await.transpose()?,
                LineSource::Sibling(reply) => timeout(CHUNK_TIMEOUT, reply.chunk())
                    .await?
                    .map_err(|error| io::Error::other(error.without_url()))?,
            };
            match chunk {
                Some(chunk) => self.buf.extend_from_slice(&chunk),
                None if self.buf.is_empty() => return Ok(None),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}
