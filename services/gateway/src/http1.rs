//! What an HTTP/1 connection is made of on either side of the gateway: bodies off the wire ([`decoder`], [`chunks`])
//! and onto it ([`encoder`]), what waits to be written ([`outbox`]), and what a worker's
//! connections take turns to use: a buffer to read through ([`scratch`]) and header maps ([`fields`]).
//!
//! Heads are not here: a client's is judged ([`crate::edge::framing`]), an instance's is trusted with its own reply and
//! nothing else ([`crate::upstream::h1`]).

mod chunks;
pub(crate) mod decoder;
pub(crate) mod encoder;
pub(crate) mod fields;
pub(crate) mod outbox;
pub(crate) mod scratch;

/// No more of a body is fetched while this much waits to be written.
pub(crate) const QUEUED: usize = 64 << 10;

#[cfg(test)]
mod tests;
