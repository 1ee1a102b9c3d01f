//! The client: reads, and guarded writes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::config::{Config, InvalidConfig};
use crate::error::Error;
use crate::proto::{KeyValue, RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use crate::rpc::{Method, Rpc};
use crate::txn::{Txn, TxnReply, prefix_end};

pub(crate) const RANGE: Method = Method::read("/etcdserverpb.KV/Range");
const TXN: &str = "/etcdserverpb.KV/Txn";
/// Keys per page of a list: some hundred KiB, whatever is in them by default.
const PAGE: i64 = 512;

/// A client. It connects when it is used first. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Etcd {
    pub(crate) rpc: Arc<Rpc>,
    pub(crate) limit: Duration,
    pub(crate) lease: Duration,
    prefix: Arc<str>,
}

/// All keys with a prefix, as they were at one revision.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// The revision.
    pub revision: i64,
    /// The cluster that was asked.
    pub cluster_id: u64,
    /// The keys, in order.
    pub kvs: Vec<KeyValue>,
}

impl Etcd {
    /// A client for a cluster.
    ///
    /// # Errors
    /// The first invalid setting.
    pub fn new(config: Config) -> Result<Self, InvalidConfig> {
        let (limit, lease) = (config.request_timeout, config.lease);
        let prefix = config.prefix.as_str().into();
        Ok(Self { rpc: Arc::new(Rpc::new(config)?), limit, lease, prefix })
    }

    /// The same client with another limit for how long a request may take.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Self { limit, ..self.clone() }
    }

    /// How long a request may take.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// A key below the configured prefix.
    pub fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// The configured prefix.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The URL of the endpoint in use, if one is connected.
    pub fn endpoint(&self) -> Option<Arc<str>> {
        self.rpc.endpoints.connected()
    }

    /// A key, as it is now.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<KeyValue>, Error> {
        let key = Bytes::copy_from_slice(key.as_ref());
        let response = self.range(RangeRequest { key, ..RangeRequest::default() }).await?;
        Ok(response.kvs.into_iter().next())
    }

    /// All keys with a prefix, read page by page, as they are now or were at a revision.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Compacted`] also if that happens between two pages.
    pub async fn list(&self, prefix: impl AsRef<[u8]>, revision: Option<i64>) -> Result<Listing, Error> {
        let prefix = prefix.as_ref();
        let mut request = RangeRequest {
            key: Bytes::copy_from_slice(prefix),
            range_end: prefix_end(prefix),
            limit: PAGE,
            revision: revision.unwrap_or(0),
            ..RangeRequest::default()
        };
        let mut kvs: Vec<KeyValue> = Vec::new();
        let mut cluster_id = None;
        loop {
            let response = self.range(request.clone()).await?;
            let header = response.header.unwrap_or_default();
            if request.revision == 0 {
                request.revision = header.revision;
            }
            // Pages of two clusters are not one list.
            if *cluster_id.get_or_insert(header.cluster_id) != header.cluster_id {
                return Err(Error::Compacted);
            }
            kvs.extend(response.kvs);
            match kvs.last() {
                Some(last) if response.more => request.key = [&last.key[..], b"\0"].concat().into(),
                _ => {
                    let cluster_id = header.cluster_id;
                    return Ok(Listing { revision: request.revision, cluster_id, kvs });
                }
            }
        }
    }

    /// Does a transaction.
    ///
    /// # Errors
    /// [`Error`]; [`Error::OutcomeUnknown`] if it writes and may have been applied.
    pub async fn txn(&self, txn: Txn) -> Result<TxnReply, Error> {
        let method = Method { path: TXN, kind: txn.kind() };
        Ok(self.call_txn(method, txn.into_request()).await?.into())
    }

    // Boxed: else every crate that awaits them compiles tonic's and hyper's client once more.

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<RangeResponse, Error>> {
        self.rpc.unary(RANGE, request, self.limit).boxed()
    }

    fn call_txn(&self, method: Method, request: TxnRequest) -> BoxFuture<'_, Result<TxnResponse, Error>> {
        self.rpc.unary(method, request, self.limit).boxed()
    }
}
