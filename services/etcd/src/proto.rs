//! etcd's messages, as in its `rpc.proto` and `kv.proto`, 3.4 to 3.6. Fields that nobody here reads are left out; protobuf
//! skips them.

pub use self::key::KeyValue;
pub(crate) use self::key::ResponseHeader;
pub(crate) use self::kv::*;
pub(crate) use self::lease::*;
pub(crate) use self::member::*;
pub(crate) use self::watch::*;

mod key;
mod kv;
mod lease;
mod member;
mod watch;
