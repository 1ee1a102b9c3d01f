//! Request bodies, with a bound on what those under way hold together, so that many large ones can't take all
//! memory: who finds no room is told at once to come back.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::http::request::Parts;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::error::ApiError;

/// So many bytes of each body are not counted: they cost no more than their connection does.
const SMALL: usize = 64 << 10;

/// A body that holds room must be there within this time: 140 KB/s for one of 8 MiB. Who sends a byte now and then
/// would keep it from others for ever.
const LONGEST: Duration = Duration::from_secs(60);

/// The room for bodies. Cloning shares it.
#[derive(Debug, Clone)]
pub(crate) struct Bodies {
    bytes: Arc<Semaphore>,
}

impl Bodies {
    /// Room for so many bytes beyond what each body has anyway.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { bytes: Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))) }
    }

    /// Reads a body of at most `limit` bytes.
    pub(super) async fn read(
        &self,
        head: &Parts,
        mut body: Body,
        limit: usize,
    ) -> Result<(Bytes, Room), ApiError> {
        let mut room = Room { all: Arc::clone(&self.bytes), used: 0, held: None };
        // The server holds the body to it.
        let told = head.headers.get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
        if told.is_some_and(|len| len > limit) {
            return Err(ApiError::BodyTooLong { limit });
        }
        // For all of it before any of it is read, rather than breaking off many that are half there.
        room.take(told.unwrap_or(0))?;
        let mut all = Bytes::new();
        let mut joined = Vec::new();
        let deadline = Instant::now() + LONGEST;
        loop {
            let frame = match room.held {
                None => body.frame().await,
                Some(_) => timeout_at(deadline, body.frame()).await.map_err(|_| ApiError::BodyBroken)?,
            };
            let Some(frame) = frame else { break };
            let Ok(data) = frame.map_err(|_| ApiError::BodyBroken)?.into_data() else { continue };
            let len = all.len() + joined.len() + data.len();
            if len > limit {
                return Err(ApiError::BodyTooLong { limit });
            }
            if told.is_none() {
                room.take(data.len())?;
            }
            // Most bodies come in one piece, which needs no copy.
            if joined.is_empty() && all.is_empty() {
                all = data;
                continue;
            }
            if joined.is_empty() {
                joined.reserve_exact(told.unwrap_or(len));
                joined.extend_from_slice(&std::mem::take(&mut all));
            }
            joined.extend_from_slice(&data);
        }
        Ok((if joined.is_empty() { all } else { joined.into() }, room))
    }
}

/// What one body takes; given back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    all: Arc<Semaphore>,
    used: usize,
    held: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Takes room for `bytes` more.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), ApiError> {
        let counted = |used: usize| used.saturating_sub(SMALL);
        let more = counted(self.used + bytes) - counted(self.used);
        self.used += bytes;
        if more == 0 {
            return Ok(());
        }
        let more = u32::try_from(more).map_err(|_| ApiError::Busy)?;
        let permit = Arc::clone(&self.all).try_acquire_many_owned(more).map_err(|_| ApiError::Busy)?;
        match &mut self.held {
            Some(held) => held.merge(permit),
            None => self.held = Some(permit),
        }
        Ok(())
    }
}
