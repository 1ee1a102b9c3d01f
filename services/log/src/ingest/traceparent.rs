//! W3C trace ids.

/// The trace id of a `traceparent` header; `None` for an invalid one, which the standard says to ignore.
pub(crate) fn trace_id(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, len| text.len() == len && is_lower_hex(text);
    let known = hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
    (known && is_trace_id(trace) && hex(parent, 16) && hex(flags, 2)).then_some(trace)
}

/// 32 lower-case hexadecimal digits, not all zero.
pub(crate) fn is_trace_id(text: &str) -> bool {
    text.len() == 32 && is_lower_hex(text) && text.bytes().any(|b| b != b'0')
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
