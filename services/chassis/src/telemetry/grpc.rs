//! OTLP over gRPC as an exchange over HTTP/2: the messages of OTLP over HTTP, each in a frame. Pure.

use bytes::{BufMut as _, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use http::{Request, Response, StatusCode, Version};
use opentelemetry_http::Bytes;
use percent_encoding::percent_decode_str;

/// What precedes a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Longest message of an error that is logged, in characters.
const MAX_MESSAGE: usize = 200;

/// The path of a signal's method.
pub(super) fn path(signal: &str) -> &'static str {
    match signal {
        "TRACES" => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        "METRICS" => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        _ => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    }
}

/// A request of OTLP over HTTP as one over gRPC.
pub(super) fn request(request: Request<Bytes>) -> Request<Bytes> {
    let (mut parts, message) = request.into_parts();
    let encoding = parts.headers.remove(CONTENT_ENCODING);
    let mut body = BytesMut::with_capacity(PREFIX + message.len());
    body.put_u8(u8::from(encoding.is_some()));
    body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX)); // the exporters limit it to less
    body.put(message);
    if let Some(encoding) = encoding {
        parts.headers.insert("grpc-encoding", encoding);
    }
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    parts.headers.insert(TE, HeaderValue::from_static("trailers"));
    parts.version = Version::HTTP_2;
    Request::from_parts(parts, body.freeze())
}

/// A response over gRPC as one over HTTP: whether to repeat the request is told from its status. With it, the collector's
/// reason if it refuses.
pub(super) fn response(
    response: Response<Bytes>,
    trailers: Option<&HeaderMap>,
) -> (Response<Bytes>, Option<String>) {
    if response.status() != StatusCode::OK {
        return (response, None);
    }
    let field = |name: &str| {
        trailers.and_then(|trailers| trailers.get(name)).or_else(|| response.headers().get(name))
    };
    let code = field("grpc-status").and_then(|code| code.to_str().ok()?.parse::<u32>().ok());
    let message = field("grpc-message").and_then(|message| message.to_str().ok()).unwrap_or_default();
    let message: String = percent_decode_str(message).decode_utf8_lossy().chars().take(MAX_MESSAGE).collect();
    let (status, reason) = match code {
        Some(0) => (StatusCode::OK, None),
        None => (StatusCode::BAD_REQUEST, Some("the answer is not gRPC".to_owned())),
        Some(code) => {
            (status_of(code), Some(format!("the collector answered with gRPC status {code}: {message}")))
        }
    };
    let mut converted = Response::new(framed(response.body()).unwrap_or_default());
    *converted.status_mut() = status;
    (converted, reason)
}

/// The message of a frame without compression, which was not offered.
fn framed(body: &Bytes) -> Option<Bytes> {
    let (prefix, message) = body.split_at_checked(PREFIX)?;
    (prefix[0] == 0).then(|| body.slice_ref(message))
}

/// As OTLP's specification tells statuses that may be repeated from others.
fn status_of(code: u32) -> StatusCode {
    match code {
        // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS
        1 | 4 | 10 | 11 | 14 | 15 => StatusCode::SERVICE_UNAVAILABLE,
        7 => StatusCode::FORBIDDEN,
        12 => StatusCode::NOT_FOUND,
        16 => StatusCode::UNAUTHORIZED,
        _ => StatusCode::BAD_REQUEST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_framed() {
        let plain =
            Request::post("http://c:4317/x").header("content-encoding", "gzip").header("x-tenant", "a");
        let framed = request(plain.body(Bytes::from_static(b"abc")).unwrap());
        assert_eq!(&framed.body()[..], b"\x01\0\0\0\x03abc");
        let header = |name: &str| framed.headers().get(name).map(|value| value.to_str().unwrap());
        assert_eq!(header("content-encoding"), None);
        assert_eq!(header("grpc-encoding"), Some("gzip"));
        assert_eq!(header("content-type"), Some("application/grpc"));
        assert_eq!(header("x-tenant"), Some("a"));
    }

    #[test]
    fn the_status_is_in_the_trailers_or_in_the_head() {
        let reply = |body: &'static [u8], head: &[(&'static str, &str)]| {
            let mut reply = Response::new(Bytes::from_static(body));
            for (name, value) in head {
                reply.headers_mut().insert(*name, value.parse().unwrap());
            }
            reply
        };
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let (converted, reason) = response(reply(b"\0\0\0\0\x02ok", &[]), Some(&trailers));
        assert_eq!((converted.status(), &converted.body()[..], reason), (StatusCode::OK, &b"ok"[..], None));
        let refused = [("grpc-status", "16"), ("grpc-message", "no%20token")];
        let (converted, reason) = response(reply(b"", &refused), None);
        assert_eq!(converted.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(reason.unwrap(), "the collector answered with gRPC status 16: no token");
        let (converted, reason) = response(reply(b"<html>", &[]), None);
        assert_eq!(converted.status(), StatusCode::BAD_REQUEST);
        assert_eq!(reason.unwrap(), "the answer is not gRPC");
        let (converted, _) = response(reply(b"", &[("grpc-status", "14")]), None);
        assert_eq!(converted.status(), StatusCode::SERVICE_UNAVAILABLE, "may be repeated");
    }
}
