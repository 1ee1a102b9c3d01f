use proptest::prelude::*;

use super::*;

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers
            .append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn sent(fields: &[(&str, &str)], trusted: bool) -> (HeaderMap, HopOptions) {
    sent_over(fields, trusted, true)
}

fn sent_over(fields: &[(&str, &str)], trusted: bool, may_upgrade: bool) -> (HeaderMap, HopOptions) {
    let mut headers = map(fields);
    let hop = Hop {
        tls: false,
        client_cert: None,
        prefix: None,
        may_upgrade,
        client: &HeaderValue::from_static("10.0.0.9"),
        trusted,
        host: Some(&HeaderValue::from_static("example.org")),
        via: &HeaderValue::from_static("1.1 gw"),
    };
    let options = request(&mut headers, &hop, || new_trace(7, 9));
    (headers, options)
}

fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

#[test]
fn hop_by_hop_and_nominated_fields_are_removed() {
    let (headers, _) = sent(
        &[
            ("connection", "keep-alive, X-Secret"),
            ("connection", "content-length, host"),
            ("host", "example.org"),
            ("content-length", "3"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("http2-settings", "x"),
            ("x-other", "kept"),
        ],
        false,
    );
    let gone = [
        "connection",
        "x-secret",
        "keep-alive",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "http2-settings",
    ];
    for name in gone {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert_eq!(all(&headers, "x-other"), ["kept"]);
    assert_eq!(all(&headers, "content-length"), ["3"]);
    assert_eq!(all(&headers, "host"), ["example.org"]);
}

#[test]
fn fields_that_the_gateway_adds_cant_be_nominated_away() {
    let fields = [("connection", "x-forwarded-for, via, traceparent")];
    let (headers, _) = sent(&fields, false);
    assert_eq!(all(&headers, "x-forwarded-for"), ["10.0.0.9"]);
    assert_eq!(all(&headers, "via"), ["1.1 gw"]);
    let (headers, _) = sent(&[fields[0], ("traceparent", "00-a-b-01")], false);
    assert_eq!(all(&headers, "traceparent"), ["00-00000000000000000000000000000007-0000000000000009-01"]);
}

#[test]
fn te_is_passed_on_for_trailers_alone() {
    let (headers, _) = sent(&[("te", "gzip, Trailers;q=1"), ("connection", "te")], false);
    assert_eq!((all(&headers, "te"), all(&headers, "connection")), (vec!["trailers"], vec!["te"]));
    let (mut headers, _) = sent(&[("te", "trailers")], false);
    for_h2(&mut headers);
    assert_eq!((all(&headers, "te"), headers.contains_key("connection")), (vec!["trailers"], false));
}

#[test]
fn an_upgrade_needs_both_fields() {
    let (headers, options) = sent(&[("connection", "Upgrade"), ("upgrade", "websocket")], false);
    assert_eq!(options.upgrade, Some(HeaderValue::from_static("websocket")));
    assert_eq!((all(&headers, "upgrade"), all(&headers, "connection")), (vec!["websocket"], vec!["upgrade"]));
    let (headers, options) = sent(&[("upgrade", "websocket")], false);
    assert!(options.upgrade.is_none() && !headers.contains_key("upgrade"));
}

#[test]
fn only_http_1_1_can_upgrade() {
    let (headers, options) = sent_over(&[("connection", "upgrade"), ("upgrade", "websocket")], false, false);
    assert!(options.upgrade.is_none());
    assert!(!headers.contains_key("upgrade") && !headers.contains_key("connection"));
}

#[test]
fn an_offer_to_upgrade_to_another_http_is_removed() {
    let passed_on = |upgrades: &[&str]| {
        let mut fields = vec![("connection", "Upgrade, HTTP2-Settings"), ("http2-settings", "AAMAAABkAAQ")];
        fields.extend(upgrades.iter().map(|upgrade| ("upgrade", *upgrade)));
        let (headers, options) = sent(&fields, false);
        let sent = headers.get("upgrade").cloned();
        assert_eq!(options.upgrade, sent);
        assert_eq!(headers.contains_key("connection"), sent.is_some());
        assert!(!headers.contains_key("http2-settings"));
        sent
    };
    // Java's HttpClient sends this in every first request.
    assert_eq!(passed_on(&["h2c"]), None);
    assert_eq!(passed_on(&["H2C", "h2c , "]), None);
    // Apache's HttpClient sends this in every request.
    assert_eq!(passed_on(&["TLS/1.2"]), None);
    assert_eq!(passed_on(&["HTTP/2.0, h2, TLS/1.3, tls"]), None);
    assert_eq!(passed_on(&["TLS/1.2, HTTP/1.1, SSTP/1"]).unwrap(), "SSTP/1");
    assert_eq!(passed_on(&["h2c, websocket"]).unwrap(), "websocket");
    assert_eq!(passed_on(&["websocket", "chat/2, h2c"]).unwrap(), "websocket, chat/2");
}

#[test]
fn a_chunked_response_loses_its_content_length() {
    let mut headers = map(&[("transfer-encoding", "chunked"), ("content-length", "3"), ("etag", "x")]);
    response(&mut headers, false);
    assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["etag"]);
    let mut headers = map(&[("connection", "close"), ("content-length", "3")]);
    response(&mut headers, false);
    assert_eq!(all(&headers, "content-length"), ["3"]);
}

#[test]
fn grpc_is_known_by_its_content_type() {
    for (kind, grpc) in [
        ("application/grpc", true),
        ("Application/GRPC+proto", true),
        ("application/grpc-web", true),
        ("application/json", false),
        ("text/plain; x=application/grpc", false),
    ] {
        assert_eq!(is_grpc(&map(&[("content-type", kind)])), grpc, "{kind}");
    }
}

#[test]
fn x_forwarded_is_overwritten_unless_the_client_is_a_trusted_proxy() {
    let fields = [
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-for", "2.2.2.2"),
        ("x-forwarded-host", "evil"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-prefix", "/evil"),
        ("x_forwarded_for", "1.1.1.1"),
        ("forwarded", "for=1.1.1.1"),
        ("hub-source", "registry"),
    ];
    let (headers, _) = sent(&fields, false);
    assert_eq!(all(&headers, "x-forwarded-for"), ["10.0.0.9"]);
    assert_eq!(all(&headers, "x-forwarded-host"), ["example.org"]);
    assert_eq!(all(&headers, "x-forwarded-proto"), ["http"]);
    for name in ["x-forwarded-prefix", "x_forwarded_for", "forwarded", "hub-source"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    let (headers, _) = sent(&fields, true);
    assert_eq!(all(&headers, "x-forwarded-for"), ["1.1.1.1, 2.2.2.2, 10.0.0.9"]);
    assert_eq!(all(&headers, "x-forwarded-host"), ["evil"]);
    assert_eq!(all(&headers, "x-forwarded-proto"), ["https"]);
    assert_eq!(all(&headers, "forwarded"), ["for=1.1.1.1"]);
}

#[test]
fn via_is_appended_to_and_reveals_a_loop() {
    let (headers, _) = sent(&[("via", "1.0 other")], false);
    assert_eq!(all(&headers, "via"), ["1.0 other", "1.1 gw"]);
    assert!(is_loop(&headers, "gw") && !is_loop(&headers, "g") && !is_loop(&headers, "1.1"));
    assert!(is_loop(&map(&[("via", "1.1 a, 2.0  gw (comment)")]), "gw"));
}

#[test]
fn a_trace_is_passed_on_or_begun() {
    let (headers, _) = sent(&[("traceparent", "00-a-b-01")], false);
    assert_eq!(all(&headers, "traceparent"), ["00-a-b-01"]);
    let (headers, _) = sent(&[], false);
    assert_eq!(all(&headers, "traceparent"), ["00-00000000000000000000000000000007-0000000000000009-01"]);
    assert_eq!(new_trace(0, 0).len(), 55);
}

#[test]
fn cookie_crumbs_are_joined() {
    let crumbs = [("cookie", "a=1"), ("cookie", "b=2")];
    let (headers, _) = sent(&crumbs, false);
    assert_eq!(all(&headers, "cookie"), ["a=1; b=2"]);
}

#[test]
fn expect_is_removed_and_reported() {
    let (headers, options) = sent(&[("expect", "100-Continue")], false);
    assert!(options.expect_continue && !headers.contains_key("expect"));
}

#[test]
fn a_response_loses_its_hop_by_hop_fields() {
    let mut headers = map(&[
        ("connection", "close, x-internal"),
        ("x-internal", "1"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("trailer", "x-sum"),
        ("content-type", "text/plain"),
    ]);
    response(&mut headers, false);
    let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["content-type", "trailer"]);
    let mut headers = map(&[("connection", "Upgrade"), ("upgrade", "websocket")]);
    response(&mut headers, true);
    assert_eq!((all(&headers, "connection"), all(&headers, "upgrade")), (vec!["upgrade"], vec!["websocket"]));
}

#[test]
fn fields_that_report_the_client_are_a_trusted_proxys_alone() {
    let names = [
        "x-real-ip",
        "true-client-ip",
        "x-client-ip",
        "cf-connecting-ip",
        "cf-connecting-ipv6",
        "fastly-client-ip",
        "fly-client-ip",
        "x-cluster-client-ip",
        "x-original-forwarded-for",
        "x-original-url",
        "x-original-host",
        "x-rewrite-url",
        "x-envoy-external-address",
        "x-appengine-user-ip",
        "x-azure-clientip",
        "client-cert",
        "ssl-client-verify",
        "x-ssl-client-cert",
        "x-remote-user",
        "remote-addr",
        "x-forwarded-client-cert",
        "x-forwarded",
        "forwarded-for",
        "wl-proxy-client-ip",
        "proxy-client-ip",
        "http-x-forwarded-for",
        "http-client-ip",
        "cloudfront-viewer-address",
        "x-scheme",
        "x-vercel-forwarded-for",
    ];
    for name in names {
        let disguised = name.replace('-', "_");
        let first = name.replacen('-', "_", 1);
        let fields = [(name, "6.6.6.6"), (&*disguised, "6.6.6.6"), (&*first, "6.6.6.6")];
        let (headers, _) = sent(&fields, false);
        assert!(fields.iter().all(|(name, _)| !headers.contains_key(*name)), "{name}: {headers:?}");
        let (headers, _) = sent(&fields, true);
        assert_eq!(all(&headers, name), ["6.6.6.6"]);
        // A proxy that overwrites the field may let its client's other spelling pass.
        assert!(
            disguised == name || !headers.contains_key(&*disguised) && !headers.contains_key(&*first),
            "{name}"
        );
    }
    let others = [
        "content-type",
        "cookie",
        "client",
        "x-client-version",
        "x-client-info",
        "x-request-id",
        "x-realip",
        "x-origin",
        "x-forward",
        "forward",
        "remote",
        "hubble",
        "hub",
        "http-referer",
        "sslclient",
        "x-real",
        "x",
    ];
    let (headers, _) = sent(&others.map(|name| (name, "1")), false);
    for name in others {
        assert_eq!(all(&headers, name), ["1"]);
    }
}

#[test]
fn fields_between_members_end_at_the_gateway() {
    let names = ["hub-source", "hub_source", "hub-instance", "hub-revision", "hub-anything"];
    for trusted in [false, true] {
        let (headers, _) = sent(&names.map(|name| (name, "visit/a")), trusted);
        assert!(names.iter().all(|name| !headers.contains_key(*name)), "{headers:?}");
    }
}

proptest! {
    /// Whatever a client nominates, in any spelling, no hop-by-hop field reaches the instance, and the only
    /// `X-Forwarded-For` is the gateway's.
    #[test]
    fn no_hop_by_hop_field_is_passed_on(
        fields in proptest::collection::vec(
            (
                prop_oneof![
                    Just("connection"), Just("te"), Just("transfer-encoding"), Just("upgrade"), Just("keep-alive"),
                    Just("proxy-connection"), Just("x-a"), Just("x-b"), Just("x-forwarded-for"), Just("via"),
                ],
                prop_oneof![
                    Just("close"), Just("X-A , x-b"), Just("te"), Just("trailers"), Just(", ,x-a;"), Just("\"x-a\""),
                    Just("upgrade"), Just("via,x-forwarded-for"), Just("keep-alive"),
                ],
            ),
            0..8,
        )
    ) {
        let (mut headers, _) = sent(&fields, false);
        for_h2(&mut headers);
        for name in HOP_BY_HOP.iter().filter(|name| **name != TE) {
            prop_assert!(!headers.contains_key(name), "{}", name);
        }
        prop_assert!(all(&headers, "te").iter().all(|te| *te == "trailers"));
        prop_assert_eq!(all(&headers, "x-forwarded-for"), ["10.0.0.9"]);
        prop_assert_eq!(all(&headers, "via").last().copied(), Some("1.1 gw"));
        let nominated = fields.iter().any(|(name, value)| *name == "connection" && *value == "X-A , x-b");
        prop_assert!(!nominated || !headers.contains_key("x-a"));
    }
}

#[test]
fn hop_by_hop_fields_have_the_expected_lengths() {
    assert!(HOP_BY_HOP.iter().all(is_hop_by_hop));
    assert!(![HOST, VIA, CONTENT_LENGTH, TRACEPARENT].iter().any(is_hop_by_hop));
}

#[test]
fn trailers_lose_fields_for_framing_routing_and_provenance() {
    let kept = ["grpc-status", "x-sum", "x-forwards"];
    let dropped = ["content-length", "transfer-encoding", "host", "x-forwarded-for", "x_forwarded_host"];
    let disguised = ["content_length", "transfer_encoding", "hub_source", "x-real-ip"];
    let names = kept.into_iter().chain(dropped).chain(disguised);
    let names = names.chain(["hub-source", "via", "connection", "traceparent"]);
    let mut fields: HeaderMap =
        names.map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1"))).collect();
    trailers(&mut fields);
    assert!(fields.keys().eq(&kept), "{fields:?}");
}
