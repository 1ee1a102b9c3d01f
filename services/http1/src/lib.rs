#![doc = include_str!("../README.md")]

mod chunked;
mod client;
mod decoder;
mod encoder;
pub mod header_map;
mod read_buf;
mod reason;
mod request_head;
mod response_head;
mod server;
mod syntax;
mod write_buf;

pub use chunked::InvalidChunk;
pub use client::{ClientConnection, ClientError, ClientRequest};
pub use decoder::{BodyDecoder, ChunkedDecoder};
pub use read_buf::{limit_reads, poll_read};
pub use reason::ReasonPhrase;
pub use request_head::{HeadError, HeadLimits, MAX_FIELDS, RequestHead, RequestHeadReader};
pub use response_head::{InvalidResponse, ResponseHead};
pub use server::{
    Command, ConnectionEnd, RequestBody, RequestBodyError, ServerConfig, ServerConnection, Supervisor,
    date_value,
};
pub use syntax::{content_length, is_disguised_framing_field, request_length};
