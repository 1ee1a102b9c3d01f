//! Transactions: compares, and what is done if all of them hold, or else.

use bytes::Bytes;

use crate::error::Kind;
use crate::proto::{
    CompareRequest, CompareResult, CompareTarget, CompareWith, DeleteRangeRequest, KeyValue, PutRequest,
    RangeRequest, Request, RequestOp, Response, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};

/// Most compares, and most operations in either list, that etcd takes by default (`--max-txn-ops`).
pub const MAX_OPS: usize = 128;

/// A transaction: it happens whole or not at all, at one revision. A key can be written once.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Txn(TxnRequest);

/// A condition that must hold for a transaction's operations to happen.
#[derive(Debug, Clone, PartialEq)]
pub struct Compare(CompareRequest);

/// An operation of a transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Op(Request);

/// The result of a transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct TxnReply {
    /// Whether all compares held.
    pub succeeded: bool,
    /// The revision after it: that of its writes, if it wrote something.
    pub revision: i64,
    /// The results of the operations that were done, in their order.
    pub results: Vec<OpResult>,
}

/// The result of an operation.
#[derive(Debug, Clone, PartialEq)]
pub enum OpResult {
    /// The key was written.
    Put,
    /// So many keys were deleted.
    Deleted(i64),
    /// A nested transaction was done: its own compares decided about it.
    Txn(TxnReply),
    /// Keys were read.
    Read {
        /// The keys.
        kvs: Vec<KeyValue>,
        /// How many there are, if only some were asked for.
        count: i64,
    },
}

impl Txn {
    /// One that does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition.
    #[must_use]
    pub fn when(mut self, compare: Compare) -> Self {
        self.0.compare.push(compare.0);
        self
    }

    /// Adds an operation for the case that all conditions hold.
    #[must_use]
    pub fn then(mut self, op: Op) -> Self {
        self.0.success.push(RequestOp { request: Some(op.0) });
        self
    }

    /// Adds an operation for the case that one does not.
    #[must_use]
    pub fn or_else(mut self, op: Op) -> Self {
        self.0.failure.push(RequestOp { request: Some(op.0) });
        self
    }

    /// The longest of its three lists, to compare with [`MAX_OPS`]; nested transactions count as one.
    pub fn ops(&self) -> usize {
        self.0.compare.len().max(self.0.success.len()).max(self.0.failure.len())
    }

    /// Its size when it is sent, in bytes. etcd takes 1.5 MiB by default.
    pub fn encoded_len(&self) -> usize {
        prost::Message::encoded_len(&self.0)
    }

    pub(crate) fn kind(&self) -> Kind {
        if only_reads(&self.0) { Kind::Read } else { Kind::Write }
    }

    pub(crate) fn into_request(self) -> TxnRequest {
        self.0
    }
}

impl Compare {
    /// The key was last written at this revision.
    pub fn mod_revision(key: impl AsRef<[u8]>, revision: i64) -> Self {
        Self::new(key, CompareResult::Equal, CompareTarget::Mod, CompareWith::Mod(revision))
    }

    /// The key was created at this revision.
    pub fn create_revision(key: impl AsRef<[u8]>, revision: i64) -> Self {
        Self::new(key, CompareResult::Equal, CompareTarget::Create, CompareWith::Create(revision))
    }

    /// The key has been written so many times since it was created.
    pub fn version(key: impl AsRef<[u8]>, version: i64) -> Self {
        Self::new(key, CompareResult::Equal, CompareTarget::Version, CompareWith::Version(version))
    }

    /// The key does not exist.
    pub fn absent(key: impl AsRef<[u8]>) -> Self {
        Self::version(key, 0)
    }

    /// The key exists.
    pub fn exists(key: impl AsRef<[u8]>) -> Self {
        Self::new(key, CompareResult::Greater, CompareTarget::Version, CompareWith::Version(0))
    }

    /// The key exists with this value.
    pub fn value(key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Self {
        Self::new(key, CompareResult::Equal, CompareTarget::Value, CompareWith::Value(value.into()))
    }

    /// The key exists under this lease.
    pub fn lease(key: impl AsRef<[u8]>, lease: i64) -> Self {
        Self::new(key, CompareResult::Equal, CompareTarget::Lease, CompareWith::Lease(lease))
    }

    fn new(key: impl AsRef<[u8]>, result: CompareResult, target: CompareTarget, with: CompareWith) -> Self {
        let key = Bytes::copy_from_slice(key.as_ref());
        Self(CompareRequest { result: result.into(), target: target.into(), key, with: Some(with) })
    }
}

impl Op {
    /// Writes a key.
    pub fn put(key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Self {
        Self::put_leased(key, value, 0)
    }

    /// Writes a key that is deleted when the lease ends.
    pub fn put_leased(key: impl AsRef<[u8]>, value: impl Into<Bytes>, lease: i64) -> Self {
        let key = Bytes::copy_from_slice(key.as_ref());
        Self(Request::Put(PutRequest { key, value: value.into(), lease }))
    }

    /// Deletes a key.
    pub fn delete(key: impl AsRef<[u8]>) -> Self {
        let key = Bytes::copy_from_slice(key.as_ref());
        Self(Request::DeleteRange(DeleteRangeRequest { key, range_end: Bytes::new() }))
    }

    /// Deletes all keys with a prefix.
    pub fn delete_prefix(prefix: impl AsRef<[u8]>) -> Self {
        let key = Bytes::copy_from_slice(prefix.as_ref());
        Self(Request::DeleteRange(DeleteRangeRequest { range_end: prefix_end(&key), key }))
    }

    /// Reads a key.
    pub fn get(key: impl AsRef<[u8]>) -> Self {
        let key = Bytes::copy_from_slice(key.as_ref());
        Self::range(RangeRequest { key, ..RangeRequest::default() })
    }

    /// Reads all keys with a prefix, which must be few: the reply is not paged.
    pub fn get_prefix(prefix: impl AsRef<[u8]>) -> Self {
        let key = Bytes::copy_from_slice(prefix.as_ref());
        Self::range(RangeRequest { range_end: prefix_end(&key), key, ..RangeRequest::default() })
    }

    /// A transaction of its own within the one around it: if its compares do not hold, the others are not affected. etcd
    /// counts its operations on top of those around it.
    pub fn txn(txn: Txn) -> Self {
        Self(Request::Txn(txn.0))
    }

    pub(crate) fn range(request: RangeRequest) -> Self {
        Self(Request::Range(request))
    }
}

impl From<TxnResponse> for TxnReply {
    fn from(response: TxnResponse) -> Self {
        let TxnResponse { header, succeeded, responses } = response;
        let ResponseHeader { revision, .. } = header.unwrap_or_default();
        Self { succeeded, revision, results: responses.into_iter().filter_map(result).collect() }
    }
}

impl TxnReply {
    /// The key that the only or first read of the transaction has found.
    pub fn first_read(&self) -> Option<&KeyValue> {
        self.results.iter().find_map(|result| match result {
            OpResult::Read { kvs, .. } => Some(kvs.first()),
            _ => None,
        })?
    }
}

fn only_reads(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match &op.request {
        Some(Request::Range(_)) => true,
        Some(Request::Txn(nested)) => only_reads(nested),
        _ => false,
    })
}

fn result(op: ResponseOp) -> Option<OpResult> {
    Some(match op.response? {
        Response::Range(range) => OpResult::Read { kvs: range.kvs, count: range.count },
        Response::Put(_) => OpResult::Put,
        Response::DeleteRange(deleted) => OpResult::Deleted(deleted.deleted),
        Response::Txn(nested) => OpResult::Txn(nested.into()),
    })
}

/// The first key after all that begin with a prefix, as etcd wants it: `\0` for "to the end".
pub(crate) fn prefix_end(prefix: &[u8]) -> Bytes {
    let Some(last) = prefix.iter().rposition(|byte| *byte < u8::MAX) else { return Bytes::from_static(&[0]) };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    end.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_key() {
        assert_eq!(prefix_end(b"/hub/"), "/hub0");
        assert_eq!(prefix_end(b"a\xff\xff"), "b");
        assert_eq!(prefix_end(b""), &b"\0"[..]);
        assert_eq!(prefix_end(b"\xff"), &b"\0"[..]);
    }

    #[test]
    fn a_transaction_that_only_reads_can_be_repeated() {
        let read = Txn::new().when(Compare::exists("a")).then(Op::get("a")).or_else(Op::get_prefix("b"));
        assert_eq!(read.kind(), Kind::Read);
        assert_eq!(read.clone().or_else(Op::delete("a")).kind(), Kind::Write);
        assert_eq!(Txn::new().then(Op::txn(read.clone())).kind(), Kind::Read);
        let nested = read.or_else(Op::put("a", "b"));
        assert_eq!(nested.ops(), 2);
        assert_eq!(Txn::new().then(Op::txn(nested)).kind(), Kind::Write);
    }
}
