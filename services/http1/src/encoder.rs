//! A body onto the wire, framed as its head has announced. Pure.

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use crate::write_buf::WriteBuf;

/// How a body is framed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum BodyEncoder {
    /// There is no body, or no more of it.
    #[default]
    Done,
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
    CloseDelimited,
}

/// The body is shorter or longer than its head has announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WrongLength;

impl BodyEncoder {
    /// Frames a piece of the body, or its end (`None`).
    pub(crate) fn encode(
        &mut self,
        frame: Option<Frame<Bytes>>,
        out: &mut WriteBuf,
    ) -> Result<(), WrongLength> {
        let Some(frame) = frame else {
            if *self == Self::Chunked {
                out.push(Bytes::from_static(b"0\r\n\r\n"));
            }
            let is_short = matches!(std::mem::take(self), Self::Length(1..));
            return if is_short { Err(WrongLength) } else { Ok(()) };
        };
        let trailers = match frame.into_data() {
            Ok(data) if data.is_empty() => return Ok(()), // an empty chunk would be the last
            Ok(data) => return self.data(data, out),
            Err(frame) => frame.into_trailers().unwrap_or_default(),
        };
        // Only the chunked coding has a place for them: elsewhere they are dropped.
        if *self == Self::Chunked {
            let mut end = b"0\r\n".to_vec();
            write_fields(&mut end, &trailers);
            end.extend_from_slice(b"\r\n");
            out.push(Bytes::from(end));
            *self = Self::Done;
        }
        Ok(())
    }

    fn data(&mut self, data: Bytes, out: &mut WriteBuf) -> Result<(), WrongLength> {
        match self {
            Self::Done => return Err(WrongLength),
            Self::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(WrongLength)?;
                out.push(data);
            }
            Self::Chunked => {
                out.push(Bytes::from(format!("{:x}\r\n", data.len())));
                out.push(data);
                out.push(Bytes::from_static(b"\r\n"));
            }
            Self::CloseDelimited => out.push(data),
        }
        Ok(())
    }
}

pub(crate) fn write_fields(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        write_field(out, name.as_str().as_bytes(), value.as_bytes());
    }
}

pub(crate) fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
