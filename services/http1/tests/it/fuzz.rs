//! The library of the package in `fuzz/`. The integration tests have the same modules.

mod reference;
mod targets;

pub use targets::{chunked_body, exchange, request_head, response_head};
