//! Reads request bodies within a memory budget. A body that finds no room is refused at once with 503.

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
use crate::ingest::IngestError;

/// Bytes of each body that are not counted. There are no more of them than connections, and so the many who send little
/// get through while a few hold the budget.
pub(crate) const UNCOUNTED: usize = 16 << 10;
/// A body must be complete within this time: 140 KB/s for one of 8 MiB. Otherwise a sender of a byte now and then would
/// keep the memory from others forever.
const MAX_DURATION: Duration = Duration::from_secs(60);

/// Memory for the bodies of all requests in progress. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct BodyBudget {
    bytes: Arc<Semaphore>,
    total: usize,
}

impl BodyBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        let total = bytes.min(Semaphore::MAX_PERMITS);
        Self { bytes: Arc::new(Semaphore::new(total)), total }
    }

    /// Reads a body of at most `limit` bytes.
    pub(super) async fn read(
        &self,
        head: &Parts,
        mut body: Body,
        limit: usize,
    ) -> Result<(Bytes, BodyMemory), ApiError> {
        let mut memory =
            BodyMemory { budget: Arc::clone(&self.bytes), total: self.total, used: 0, permit: None };
        // The server makes sure that the body has this length.
        let length =
            head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if length.is_some_and(|length| length > limit) {
            return Err(ApiError::BodyTooLong { limit });
        }
        // All of it before the first byte, rather than aborting many bodies halfway.
        memory.reserve(length.unwrap_or(0))?;
        let mut single = Bytes::new();
        let mut joined = Vec::new();
        let deadline = Instant::now() + MAX_DURATION;
        loop {
            let frame = timeout_at(deadline, body.frame()).await.map_err(|_| ApiError::BodyBroken)?;
            let Some(frame) = frame else { break };
            let Ok(data) = frame.map_err(|_| ApiError::BodyBroken)?.into_data() else { continue };
            let so_far = single.len() + joined.len() + data.len();
            if so_far > limit {
                return Err(ApiError::BodyTooLong { limit });
            }
            if length.is_none() {
                memory.reserve(data.len())?;
            }
            // Most bodies come in one piece, which needs no copy.
            if joined.is_empty() && single.is_empty() {
                single = data;
                continue;
            }
            if joined.is_empty() {
                joined.reserve_exact(length.unwrap_or(so_far));
                joined.extend_from_slice(&std::mem::take(&mut single));
            }
            joined.extend_from_slice(&data);
        }
        Ok((if joined.is_empty() { single } else { joined.into() }, memory))
    }
}

/// The share of one body in the budget; returned when dropped.
#[derive(Debug)]
pub(super) struct BodyMemory {
    budget: Arc<Semaphore>,
    total: usize,
    used: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl BodyMemory {
    /// Takes `bytes` more from the budget.
    pub(super) fn reserve(&mut self, bytes: usize) -> Result<(), ApiError> {
        let counted = |used: usize| used.saturating_sub(UNCOUNTED);
        let more = counted(self.used.saturating_add(bytes)) - counted(self.used);
        self.used = self.used.saturating_add(bytes);
        if more == 0 {
            return Ok(());
        }
        if bytes > self.total {
            let too_many = IngestError::TooMany { limit: self.total, what: "bytes when decoded" };
            return Err(too_many.into());
        }
        let more = u32::try_from(more).map_err(|_| ApiError::Busy)?;
        let permit = Arc::clone(&self.budget).try_acquire_many_owned(more).map_err(|_| ApiError::Busy)?;
        match &mut self.permit {
            Some(held) => held.merge(permit),
            None => self.permit = Some(permit),
        }
        Ok(())
    }
}
