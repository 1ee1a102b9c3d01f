//! One stream of a watch, from its opening to its end.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tonic::{Code, Status, Streaming};

use super::progress;
use crate::auth::AuthSession;
use crate::batches::Fragments;
use crate::client::{Etcd, RANGE};
use crate::connection::Connection;
use crate::error::{Cause, Error, Kind, asks_for_authentication};
use crate::history::Position;
use crate::proto::{
    RangeRequest, RangeResponse, StatusRequest, StatusResponse, WatchCall, WatchCreateRequest,
    WatchProgressRequest, WatchRequest, WatchResponse,
};
use crate::rpc::Method;
use crate::txn::prefix_end;
use crate::update::Update;

const WATCH: &str = "/etcdserverpb.Watch/Watch";
const STATUS: Method = Method::read("/etcdserverpb.Maintenance/Status");

/// Why a stream has ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Nobody wants to know any more.
    Unused,
    /// It can't continue after its revision.
    Compacted,
    /// Revisions have another meaning now.
    OtherHistory,
    /// Anything else.
    Failed(Error),
}

pub(super) struct Session<'a> {
    position: &'a mut Position,
    updates: &'a mpsc::Sender<Update>,
    responses: Streaming<WatchResponse>,
    requests: mpsc::Sender<WatchRequest>,
    connection: Connection,
    /// How long the stream may be silent.
    patience: Duration,
    ordered_progress: bool,
}

impl<'a> Session<'a> {
    /// Opens a stream and follows it to its end.
    pub(super) async fn open(
        etcd: &Etcd,
        prefix: &Bytes,
        position: &'a mut Position,
        updates: &'a mpsc::Sender<Update>,
    ) -> Ended {
        let create = WatchCreateRequest {
            key: prefix.clone(),
            range_end: prefix_end(prefix),
            start_revision: position.revision + 1,
            progress_notify: true,
            fragment: true,
        };
        let create = WatchRequest { call: Some(WatchCall::Create(create)) };
        let call = |connection: Connection, session: AuthSession| {
            let (requests, receiver) = mpsc::channel(4);
            let _ = requests.try_send(create.clone()); // it is empty
            async move {
                let responses = connection.streaming(WATCH, receiver, session.token.as_ref()).await?;
                Ok((connection, requests, responses))
            }
        };
        let (connection, requests, responses) = match etcd.rpc.repeat(Kind::Read, etcd.limit, call).await {
            Ok(opened) => opened,
            Err(error) => return Ended::Failed(error),
        };
        let mut session = Session {
            position,
            updates,
            responses,
            requests,
            connection,
            patience: etcd.lease,
            ordered_progress: false,
        };
        let ended = session.run(etcd, prefix).await;
        if matches!(ended, Ended::Failed(_)) {
            etcd.rpc.endpoints.failed(&session.connection).await;
        }
        ended
    }

    async fn run(&mut self, etcd: &Etcd, prefix: &Bytes) -> Ended {
        match self.created(etcd).await {
            Ok(()) => {}
            Err(ended) => return ended,
        }
        // Only now, because the stream belongs to the cluster that will be asked.
        match etcd.txn(self.position.question(prefix)).await {
            Ok(reply) if self.position.agrees_with(&reply) => {}
            Ok(_) | Err(Error::FutureRevision) => return Ended::OtherHistory,
            Err(Error::Compacted) => return Ended::Compacted,
            Err(error) => return Ended::Failed(error),
        }
        let status: Result<StatusResponse, _> = etcd.rpc.unary(STATUS, StatusRequest {}, etcd.limit).await;
        self.ordered_progress = status.is_ok_and(|status| progress::is_ordered(&status.version));
        let revision = self.position.revision;
        if self.updates.send(Update::Alive { revision }).await.is_err() {
            return Ended::Unused;
        }
        let mut fragments = Fragments::default();
        let mut heard = Instant::now();
        // Whether a progress request has got no answer yet.
        let mut unanswered = false;
        loop {
            let response = tokio::select! {
                () = self.updates.closed() => return Ended::Unused,
                response = timeout(self.patience / 3, self.responses.message()) => response,
            };
            let response = match response {
                Ok(Ok(Some(response))) => response,
                Ok(Ok(None)) => return self.failed("the watch was ended"),
                Ok(Err(status)) => return self.refused(etcd, &status).await,
                Err(_) if unanswered && self.has_everything(etcd, prefix).await => {
                    heard = Instant::now();
                    let revision = self.position.revision;
                    match self.send(Update::Alive { revision }).await {
                        Ok(()) => continue,
                        Err(ended) => return ended,
                    }
                }
                Err(_) if heard.elapsed() >= self.patience => {
                    return self.failed(&format!("the watch was silent for {:?}", self.patience));
                }
                Err(_) => {
                    unanswered = true;
                    let call = Some(WatchCall::Progress(WatchProgressRequest {}));
                    let _ = self.requests.try_send(WatchRequest { call }); // full: one is on its way
                    continue;
                }
            };
            if let Err(ended) = self.take(etcd, response, &mut fragments).await {
                return ended;
            }
            heard = Instant::now();
            unanswered = false;
        }
    }

    /// Whether etcd, asked through the same member, has no revision that was not delivered. Later members answer no progress
    /// request until the first revision that a watch is about exists, and nothing may be written for hours.
    async fn has_everything(&self, etcd: &Etcd, prefix: &Bytes) -> bool {
        let read = RangeRequest { key: prefix.clone(), keys_only: true, ..RangeRequest::default() };
        let reply = async {
            let session = etcd.rpc.auth.session(&self.connection, None).await?;
            self.connection.unary(RANGE.path, read, session.token.as_ref()).await
        };
        let reply: Result<Result<RangeResponse, Status>, _> = timeout(self.patience / 3, reply).await;
        let header = reply.ok().and_then(Result::ok).and_then(|reply| reply.header);
        header.is_some_and(|header| {
            header.cluster_id == self.position.cluster_id && header.revision == self.position.revision
        })
    }

    /// Waits until the watch exists.
    async fn created(&mut self, etcd: &Etcd) -> Result<(), Ended> {
        match timeout(etcd.limit, self.responses.message()).await {
            Ok(Ok(Some(response))) if response.created && !response.canceled => self.check_cluster(&response),
            Ok(Ok(Some(response))) => Err(self.cancelled(etcd, &response).await),
            Ok(Ok(None)) => Err(self.failed("the watch was ended")),
            Ok(Err(status)) => Err(self.refused(etcd, &status).await),
            Err(_) => Err(self.failed(&format!("no watch within {:?}", etcd.limit))),
        }
    }

    async fn take(
        &mut self,
        etcd: &Etcd,
        response: WatchResponse,
        fragments: &mut Fragments,
    ) -> Result<(), Ended> {
        self.check_cluster(&response)?;
        if response.canceled {
            return Err(self.cancelled(etcd, &response).await);
        }
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        let is_progress = response.events.is_empty() && !response.fragment;
        // A watch's own notification is ordered in all versions.
        let ordered = self.ordered_progress || response.watch_id >= 0;
        let batches = fragments
            .add(response.events, response.fragment)
            .map_err(|_| self.failed("too many changes at one revision"))?;
        for batch in batches {
            if batch.revision > self.position.revision {
                self.position.apply(&batch);
                let (revision, changes) = (batch.revision, batch.changes);
                self.send(Update::Changes { revision, changes }).await?;
            }
        }
        if is_progress {
            if ordered {
                self.position.revision = self.position.revision.max(revision);
            }
            self.send(Update::Alive { revision: self.position.revision }).await?;
        }
        Ok(())
    }

    async fn send(&self, update: Update) -> Result<(), Ended> {
        self.updates.send(update).await.map_err(|_| Ended::Unused)
    }

    fn check_cluster(&self, response: &WatchResponse) -> Result<(), Ended> {
        let id = response.header.as_ref().map_or(0, |header| header.cluster_id);
        if id == self.position.cluster_id { Ok(()) } else { Err(Ended::OtherHistory) }
    }

    async fn cancelled(&self, etcd: &Etcd, response: &WatchResponse) -> Ended {
        if response.compact_revision > 0 {
            return Ended::Compacted;
        }
        let reason = &response.cancel_reason;
        let denied = reason.contains("permission denied");
        let status = Status::new(if denied { Code::PermissionDenied } else { Code::Unavailable }, reason);
        self.refused(etcd, &status).await
    }

    async fn refused(&self, etcd: &Etcd, status: &Status) -> Ended {
        let cause = Cause::of_status(&self.connection.endpoint, status);
        if asks_for_authentication(status.message()) {
            etcd.rpc.auth.forget().await;
        }
        match status.code() {
            Code::PermissionDenied => Ended::Failed(Error::Refused(cause)),
            _ => Ended::Failed(Error::Unavailable(cause)),
        }
    }

    fn failed(&self, text: &str) -> Ended {
        Ended::Failed(Error::Unavailable(Cause::new(&self.connection.endpoint, text)))
    }
}
