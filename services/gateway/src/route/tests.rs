use proptest::prelude::*;

use super::*;

fn service(text: &str) -> Result<String, BadTarget> {
    let uri: Uri = text.parse().map_err(|_| BadTarget::Form)?;
    match target(&uri)? {
        RequestTarget::Asterisk => Ok("*".into()),
        RequestTarget::Path { service, .. } => Ok(service.into()),
    }
}

#[test]
fn the_first_segment_is_the_service() {
    for (text, name) in [
        ("/log", "log"),
        ("/log/", "log"),
        ("/log?x=/../y", "log"),
        ("/log/a/b?c", "log"),
        ("/logs", "logs"),
        ("/LOG/a", "LOG"),
        ("/l%6fg", "l%6fg"),
        ("/log/a..b/...", "log"),
        ("/log/.well-known/x", "log"),
        ("//log", ""),
        ("/", ""),
        ("http://example.org/log/x", "log"),
        ("http://example.org", ""),
        ("*", "*"),
    ] {
        assert_eq!(service(text).as_deref(), Ok(name), "{text}");
    }
}

#[test]
fn member_endpoints_are_recognised_in_every_spelling() {
    let guarded =
        ["/services", "/services/", "//metrics", "/%73ervices", "/Livez;x=1", "/%2fheart-beat/x", "/readyz"];
    assert!(guarded.iter().all(|path| is_for_members(path)));
    let free = ["/", "/service", "/servicesx", "/a/services", "/metrics.html", "/%73", "/heart-beats"];
    assert!(!free.iter().any(|path| is_for_members(path)));
}

#[test]
fn an_ambiguous_path_is_refused() {
    for (text, why) in [
        ("/log/../visit", BadTarget::DotSegment),
        ("/log/..", BadTarget::DotSegment),
        ("/./log", BadTarget::DotSegment),
        ("/../log", BadTarget::DotSegment),
        ("/log/%2e%2e/visit", BadTarget::DotSegment),
        ("/log/.%2E/visit", BadTarget::DotSegment),
        ("/log/%2e", BadTarget::DotSegment),
        ("/log/..;x=1/visit", BadTarget::DotSegment),
        ("/log/..%2fvisit", BadTarget::DotSegment),
        ("/log/a%2f..", BadTarget::DotSegment),
        ("/log/..%5cvisit", BadTarget::Backslash),
        ("/log/a%5Cb", BadTarget::Backslash),
        ("/log/a%00", BadTarget::Control),
        ("/log/a%0d%0ab", BadTarget::Control),
        ("/log/a%7f", BadTarget::Control),
        ("/log/%", BadTarget::Escape),
        ("/log/%2", BadTarget::Escape),
        ("/log/%zz", BadTarget::Escape),
        ("/log/%+1", BadTarget::Escape),
        ("ftp://example.org/log", BadTarget::Form),
        ("http://user@example.org/log", BadTarget::Form),
        ("example.org:80", BadTarget::Form),
    ] {
        assert_eq!(service(text), Err(why), "{text}");
    }
}

#[test]
fn an_encoded_slash_is_reported_for_the_service_to_decide() {
    let uri: Uri = "/store/a%2Fb".parse().unwrap();
    let Ok(RequestTarget::Path { path, .. }) = target(&uri) else { panic!("a path") };
    assert!(path.encoded_slash);
}

#[test]
fn the_gateway_itself_and_member_endpoints_are_never_public() {
    assert!(may_be_public("log", "gateway"));
    for name in ["gateway", "services", "heart-beat", "directory", "livez", "readyz", "metrics"] {
        assert!(!may_be_public(name, "gateway"), "{name}");
    }
}

/// The segments of a path as a lenient server reads it: decoded once, dot segments resolved, `\` taken for `/`.
fn resolve_leniently(path: &str) -> Vec<String> {
    let bytes = path.as_bytes();
    let mut decoded = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, decode(bytes, at)) {
            (b'%', Some(value)) => {
                decoded.push(value);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    let text = String::from_utf8_lossy(&decoded).replace('\\', "/");
    let mut resolved: Vec<String> = Vec::new();
    for segment in text.split('/').skip(1) {
        match segment.split(';').next().unwrap_or_default() {
            ".." => drop(resolved.pop()),
            "." => {}
            _ => resolved.push(segment.to_owned()),
        }
    }
    resolved
}

proptest! {
    /// However leniently the instance reads an accepted path, it stays within the service that it was routed to.
    #[test]
    fn no_accepted_path_leaves_its_service(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("/"), Just("."), Just(".."), Just("%2e"), Just("%2E"), Just("%2f"), Just("%5c"),
                Just("%00"), Just("%25"), Just("a"), Just(";"), Just("log"), Just("%"), Just("-"), Just("?"),
            ],
            0..12,
        )
    ) {
        let text = format!("/log/{}", parts.concat());
        let Ok(uri) = text.parse::<Uri>() else { return Ok(()) };
        if let Ok(RequestTarget::Path { service, path, .. }) = target(&uri) {
            prop_assert_eq!(service, "log");
            let resolved = resolve_leniently(path.path);
            prop_assert_eq!(resolved.first().map(String::as_str), Some("log"));
        }
    }

    #[test]
    fn no_target_panics(text in "\\PC{0,40}") {
        let _ = service(&text);
    }
}
