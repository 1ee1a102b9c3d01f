//! Trace ids in lines.

/// The trace id in the value of a field that is meant for one: 32 hexadecimal digits, or those of a `traceparent`.
pub(super) fn trace_id(value: &str) -> Option<String> {
    let value = value.trim();
    let id = match value.split('-').collect::<Vec<_>>()[..] {
        [_, id, _, _] => id, // version, id, span, flags
        _ => value,
    };
    let valid =
        id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) && id.bytes().any(|b| b != b'0');
    valid.then(|| id.to_ascii_lowercase())
}

/// Whether a field's name is one for trace ids.
pub(super) fn is_key(key: &str) -> bool {
    let key: String = key.chars().filter(char::is_ascii_alphanumeric).collect();
    ["traceid", "oteltraceid", "traceparent", "trace", "contexttraceid"]
        .contains(&key.to_ascii_lowercase().as_str())
}

/// The trace id in a text such as `… trace_id=4bf92f3577b34da6a3ce929d0e0e4736 …` or `[traceId: …]`.
pub(super) fn find(text: &str) -> Option<String> {
    let mut rest = text;
    while let Some(at) = rest.find(['t', 'T']) {
        rest = &rest[at..];
        if rest.get(..5).is_some_and(|word| word.eq_ignore_ascii_case("trace")) {
            let key =
                rest.find(|c: char| !c.is_ascii_alphanumeric() && !"_-.".contains(c)).unwrap_or(rest.len());
            let value = rest[key..].trim_start_matches(['=', ':', ' ', '"', '\'']);
            let end = value.find(|c: char| !c.is_ascii_hexdigit() && c != '-').unwrap_or(value.len());
            if is_key(&rest[..key])
                && let Some(id) = trace_id(&value[..end])
            {
                return Some(id);
            }
        }
        rest = &rest[1..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_ids_are_found_under_the_names_that_loggers_use() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        for text in [
            format!("trace_id={id}"),
            format!("x traceId: {id}, y"),
            format!("[trace-id=\"{id}\" span]"),
            format!("tt trace.id={id}"),
            format!("traceparent: 00-{id}-00f067aa0ba902b7-01"),
            format!("TRACE_ID={}", id.to_uppercase()),
        ] {
            assert_eq!(find(&text).as_deref(), Some(id), "{text}");
        }
        for text in ["trace_id=", "trace_id=123", "tracer=4bf92f3577b34da6a3ce929d0e0e4736", id] {
            assert_eq!(find(text), None, "{text}");
        }
        assert_eq!(find(&format!("trace_id={}", "0".repeat(32))), None);
    }
}
