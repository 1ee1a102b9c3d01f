//! A body onto the wire, framed as its head has said. Pure.

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::outbox::Outbox;

/// How a body is framed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Encoder {
    /// There is none, or it is over.
    #[default]
    None,
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
    /// It ends with the connection.
    UntilEnd,
}

impl Encoder {
    /// Frames a piece of the body, or its end. False where the body is not as long as its head has said.
    pub(crate) fn frame(&mut self, frame: Option<Frame<Bytes>>, out: &mut Outbox) -> bool {
        let Some(frame) = frame else {
            if *self == Self::Chunked {
                out.push(Bytes::from_static(b"0\r\n\r\n"));
            }
            return !matches!(std::mem::take(self), Self::Length(1..));
        };
        let trailers = match frame.into_data() {
            Ok(data) if data.is_empty() => return true, // an empty chunk would be the last
            Ok(data) => return self.data(data, out),
            Err(frame) => frame.into_trailers().unwrap_or_default(),
        };
        // Only behind chunks is there a place for them: elsewhere they are left out.
        if *self == Self::Chunked {
            let mut end = b"0\r\n".to_vec();
            write_fields(&mut end, &trailers);
            end.extend_from_slice(b"\r\n");
            out.push(Bytes::from(end));
            *self = Self::None;
        }
        true
    }

    fn data(&mut self, data: Bytes, out: &mut Outbox) -> bool {
        match self {
            Self::None => return false,
            Self::Length(left) => {
                let Some(rest) = left.checked_sub(data.len() as u64) else { return false };
                *left = rest;
                out.push(data);
            }
            Self::Chunked => {
                out.push(Bytes::from(format!("{:x}\r\n", data.len())));
                out.push(data);
                out.push(Bytes::from_static(b"\r\n"));
            }
            Self::UntilEnd => out.push(data),
        }
        true
    }
}

/// Writes fields as they are, a line each.
pub(crate) fn write_fields(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        write_field(out, name.as_str().as_bytes(), value.as_bytes());
    }
}

/// Writes one field's line.
pub(crate) fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
