//! Sending entries to the log service: to a random instance, and to another one if that fails.
//!
//! - [`LogClient`] waits for the acknowledgement; under load its entries share requests.
//! - [`LogQueue`] sends in the background, and [`LogLayer`] feeds it with the program's own `tracing` events.
//!
//! An entry is sent again only if the instance that got it did not acknowledge it. So it is lost only if all attempts
//! fail, and then the sender gets an error; and an entry that an instance stored without being able to acknowledge it
//! may be stored twice, under the same key, by which readers recognize the copy. Keys are random, so that nobody can guess
//! one. The number of attempts and their total time are bounded.
//!
//! With [`LogCopies`] each entry goes to several instances, under one key, and is acknowledged when all have it.

pub use self::client::{LOG_SERVICE, LogClient};
pub use self::copies::{FewerCopies, LogCopies, MAX_COPIES};
pub use self::error::{AttemptError, LogError};
pub use self::layer::LogLayer;
pub use self::post::BATCH_META;
pub use self::queue::{LogEntry, LogQueue, Pusher, QueueFull};

mod batcher;
mod batchers;
mod client;
mod copies;
mod error;
mod layer;
mod post;
mod queue;

/// Header of a response whose service has logged something for it: the `Id` of the log instance that stored the entry.
pub const HUB_LOGGED_BY: &str = "hub-logged-by";
