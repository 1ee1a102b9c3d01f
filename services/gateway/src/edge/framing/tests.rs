use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits { size: 1024, fields: 8, target: 100 };

/// Feeds `bytes` in pieces of the given sizes, again and again; what is passed on, and the fault.
fn feed(bytes: &[u8], pieces: &[usize]) -> (Vec<u8>, Option<Fault>, Framing) {
    let mut framing = Framing::new(LIMITS);
    let mut passed = Vec::new();
    let mut rest = bytes;
    for size in pieces.iter().cycle() {
        let (piece, after) = rest.split_at((*size).clamp(1, rest.len().max(1)).min(rest.len()));
        let n = framing.advance(piece);
        passed.extend_from_slice(&piece[..n]);
        if n < piece.len() || after.is_empty() {
            break;
        }
        rest = after;
    }
    (passed, framing.fault(), framing)
}

fn fault(head: &str) -> Option<Fault> {
    feed(head.as_bytes(), &[usize::MAX]).1
}

#[test]
fn a_head_that_two_parsers_could_read_in_two_ways_never_reaches_the_parser() {
    for (head, expected) in [
        (
            "GET /a HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            Fault::LengthAndCoding,
        ),
        (
            "GET /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            Fault::LengthAndCoding,
        ),
        ("GET /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", Fault::ContentLength),
        ("GET /a HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", Fault::ContentLength),
        ("GET /a HTTP/1.1\r\nContent-Length: +1\r\n\r\n", Fault::ContentLength),
        ("GET /a HTTP/1.1\r\nContent-Length: -1\r\n\r\n", Fault::ContentLength),
        ("GET /a HTTP/1.1\r\nContent-Length: 0x1\r\n\r\n", Fault::ContentLength),
        ("GET /a HTTP/1.1\r\nContent-Length:\r\n\r\n", Fault::ContentLength),
        ("GET /a HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n", Fault::ContentLength),
        ("GET /a HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Fault::TransferCoding),
        ("GET /a HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", Fault::TransferCoding),
        ("GET /a HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", Fault::TransferCoding),
        ("GET /a HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n", Fault::TransferCoding),
        ("GET /a HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", Fault::TransferCoding),
        ("GET /a HTTP/1.1\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", Fault::TransferCoding),
        (
            "GET /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            Fault::TransferCoding,
        ),
        ("GET /a HTTP/1.1\r\nTransfer_Encoding: chunked\r\n\r\n", Fault::Disguise),
        ("GET /a HTTP/1.1\r\nTransfer---Encoding: chunked\r\n\r\n", Fault::Disguise),
        ("GET /a HTTP/1.1\r\ncontent_length: 1\r\n\r\n", Fault::Disguise),
        ("GET /a HTTP/1.1\r\n-Content.Length: 1\r\n\r\n", Fault::Disguise),
        ("GET /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::CodingInOldVersion),
        ("GET /a HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n", Fault::Syntax),
        ("GET /a HTTP/1.1\r\nA: b\r\n c\r\n\r\n", Fault::Syntax),
        ("GET /a HTTP/1.1\r\nA: b\0c\r\n\r\n", Fault::Syntax),
        ("GET /a HTTP/1.1\r\nA: b\rc\r\n\r\n", Fault::Syntax),
        ("GET /a HTTP/1.1\r\nA b\r\n\r\n", Fault::Syntax),
        ("GET /a HTTP/1.1\r\n: b\r\n\r\n", Fault::Syntax),
        ("GET /a HTTP/1.1\nA: b\r\n\r\n", Fault::BareLineFeed),
        ("GET /a HTTP/1.1\r\nA: b\n\r\n", Fault::BareLineFeed),
        ("GET /a HTTP/1.1\r\nA: b\r\n\n", Fault::BareLineFeed),
        ("\nGET /a HTTP/1.1\r\nA: b\r\n\r\n", Fault::BareLineFeed),
        ("GET  /a HTTP/1.1\r\n\r\n", Fault::Syntax),
        ("GET /a b HTTP/1.1\r\n\r\n", Fault::Version),
        ("GET /a\r\n\r\n", Fault::Syntax),
        ("GET /a HTTP/1.2\r\n\r\n", Fault::Version),
        ("GET /a HTTP/9.9\r\n\r\n", Fault::Version),
        ("GET /a#b HTTP/1.1\r\n\r\n", Fault::Target),
        ("GET http://[::1/ HTTP/1.1\r\n\r\n", Fault::Target),
        ("G\u{e9}T /a HTTP/1.1\r\n\r\n", Fault::Syntax),
    ] {
        assert_eq!(fault(head), Some(expected), "{head:?}");
        // Nor when it comes byte by byte: its last byte is withheld at the latest.
        let (passed, slow, _) = feed(head.as_bytes(), &[1]);
        assert_eq!(slow, Some(expected), "{head:?}");
        assert!(passed.len() < head.len(), "{head:?}");
    }
}

#[test]
fn good_heads_pass() {
    for head in [
        "GET /a HTTP/1.1\r\n\r\n",
        "GET /a?b=[c] HTTP/1.1\r\nHost: x\r\n\r\n",
        "\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://a/b HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /a HTTP/1.1\r\ncontent-length: 3 \r\n\r\nabc",
        "POST /a HTTP/1.1\r\nTRANSFER-ENCODING:  Chunked\t\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ] {
        for pieces in [&[usize::MAX][..], &[1], &[3, 7]] {
            let (passed, fault, framing) = feed(head.as_bytes(), pieces);
            assert_eq!((passed.len(), fault), (head.len(), None), "{head:?}");
            assert!(!framing.in_head() && matches!(framing.state, State::Head), "{head:?}");
        }
    }
}

#[test]
fn limits_hold() {
    let long = |n: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(n));
    assert_eq!(fault(&long(99)), None);
    assert_eq!(fault(&long(100)), Some(Fault::TargetTooLong));
    assert_eq!(feed(long(5000).as_bytes(), &[10]).1, Some(Fault::TargetTooLong));
    let fields = |n: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(n));
    assert_eq!(fault(&fields(8)), None);
    assert_eq!(fault(&fields(9)), Some(Fault::TooManyHeaders));
    let large = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(1020));
    assert_eq!(fault(&large), Some(Fault::HeadTooLarge));
    assert_eq!(feed(large.as_bytes(), &[10]).1, Some(Fault::HeadTooLarge));
}

#[test]
fn a_smuggled_second_request_is_withheld_but_the_first_is_not() {
    let first = "POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
    let second = "POST /a HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let (passed, fault, _) = feed(format!("{first}{second}").as_bytes(), &[usize::MAX]);
    assert_eq!(passed, first.as_bytes());
    assert_eq!(fault, Some(Fault::LengthAndCoding));
}

#[test]
fn a_malformed_chunk_stops_the_stream() {
    for body in
        ["x\r\n", "\r\n", "3 \r\nabc", "3\nabc\r\n", "3\r\nabcd\r\n", "3\r\nabc0\r\n", "1;a\0\r\n", "-1\r\n"]
    {
        let request = format!("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}0\r\n\r\n");
        assert_eq!(fault(&request), Some(Fault::Chunk), "{body:?}");
    }
    for size in ["0000000000000001", "fffffffffffffffff"] {
        let request =
            format!("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\na\r\n0\r\n\r\n");
        assert_eq!(fault(&request), Some(Fault::Chunk), "{size}");
    }
}

fn request() -> impl Strategy<Value = (String, bool)> {
    let chunks = proptest::collection::vec(("[a-z]{1,20}", "(;[a-z]{1,5}=[a-z]{0,5})?"), 0..4);
    let chunked = (chunks, proptest::bool::ANY).prop_map(|(chunks, trailer)| {
        let mut text = "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
        for (data, extension) in chunks {
            text += &format!("{:x}{extension}\r\n{data}\r\n", data.len());
        }
        text + if trailer { "0\r\na: b\r\nc: d\r\n\r\n" } else { "0\r\n\r\n" }
    });
    let length = "[a-z\r\n]{0,40}".prop_map(|body| {
        format!("PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    });
    prop_oneof![
        Just("GET /a HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()).prop_map(|t| (t, true)),
        chunked.prop_map(|t| (t, true)),
        length.prop_map(|t| (t, true)),
        Just("GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n".to_owned()).prop_map(|t| (t, false)),
    ]
}

proptest! {
    /// However a pipeline of requests is cut into reads: good ones pass whole, and nothing passes from the first bad
    /// one's end on.
    #[test]
    fn cuts_change_nothing(
        requests in proptest::collection::vec(request(), 1..6),
        pieces in proptest::collection::vec(1_usize..60, 1..8),
    ) {
        let text: String = requests.iter().map(|(text, _)| text.as_str()).collect();
        let good: usize = requests.iter().take_while(|(_, good)| *good).map(|(text, _)| text.len()).sum();
        let (passed, fault, framing) = feed(text.as_bytes(), &pieces);
        prop_assert_eq!(fault.is_some(), requests.iter().any(|(_, good)| !good));
        prop_assert_eq!(&passed[..], &text.as_bytes()[..passed.len()]);
        prop_assert!(passed.len() >= good);
        match requests.iter().find(|(_, good)| !good) {
            Some((bad, _)) => prop_assert!(passed.len() < good + bad.len()),
            None => prop_assert!(!framing.in_head()),
        }
    }

    #[test]
    fn no_bytes_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        pieces in proptest::collection::vec(1_usize..60, 1..8),
    ) {
        let (passed, fault, _) = feed(&bytes, &pieces);
        prop_assert!(passed.len() == bytes.len() || fault.is_some());
    }
}
