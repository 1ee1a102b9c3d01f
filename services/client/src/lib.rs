#![doc = include_str!("../README.md")]

pub mod directory;
pub mod load;
pub mod log;
pub mod membership;
pub mod token;
pub mod trace;

mod backoff;
mod causes;
mod http;

pub use self::backoff::backoff;
pub use self::causes::with_causes;
pub use self::directory::Directory;
pub use self::http::{HttpClient, HttpClientError, HttpOptions, MemberCredentials, SendError};
pub use self::load::LoadCounters;
pub use self::log::LogClient;
pub use self::membership::Member;
pub use self::token::Token;
