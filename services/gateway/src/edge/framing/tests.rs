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

/// Where each request ends, as `httparse` alone reads the bytes: heads, chunk sizes and trailers are its word, lengths
/// are RFC 9112's. And whether it stopped at something that it does not take.
fn ends_by_httparse(bytes: &[u8]) -> (Vec<usize>, bool) {
    let mut ends = Vec::new();
    loop {
        match request_by_httparse(&bytes[ends.last().copied().unwrap_or(0)..]) {
            Ok(Some(len)) => ends.push(ends.last().unwrap_or(&0) + len),
            Ok(None) => return (ends, false),
            Err(()) => return (ends, true),
        }
    }
}

/// The length of the first request, `None` where its end is not there.
fn request_by_httparse(bytes: &[u8]) -> Result<Option<usize>, ()> {
    fn complete<T>(parsed: Result<httparse::Status<T>, impl Sized>) -> Result<Option<T>, ()> {
        match parsed {
            Ok(httparse::Status::Complete(parsed)) => Ok(Some(parsed)),
            Ok(httparse::Status::Partial) => Ok(None),
            Err(_) => Err(()),
        }
    }
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    let Some(mut at) = complete(request.parse(bytes))? else { return Ok(None) };
    let value = |name: &str| {
        let field = request.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
        Some(std::str::from_utf8(field.value).unwrap_or("?").trim())
    };
    if value("transfer-encoding").is_none() {
        let length: usize = value("content-length").unwrap_or("0").parse().map_err(|_| ())?;
        return Ok(at.checked_add(length).filter(|end| *end <= bytes.len()));
    }
    loop {
        let Some((start, size)) = complete(httparse::parse_chunk_size(&bytes[at..]))? else {
            return Ok(None);
        };
        at += start;
        if size == 0 {
            let mut trailers = [httparse::EMPTY_HEADER; 64];
            let parsed = complete(httparse::parse_headers(&bytes[at..], &mut trailers))?;
            return Ok(parsed.map(|(len, _)| at + len));
        }
        at = usize::try_from(size).ok().and_then(|size| at.checked_add(size)?.checked_add(2)).ok_or(())?;
        match bytes.get(at - 2..at) {
            Some(b"\r\n") => {}
            Some(_) => return Err(()),
            None => return Ok(None),
        }
    }
}

/// Where requests end by [`Framing`]: those that end where a piece does, so with pieces of one byte all.
fn ends_by_framing(bytes: &[u8], pieces: &[usize]) -> (Vec<usize>, Option<Fault>) {
    let mut framing = Framing::new(LIMITS);
    let (mut at, mut ends) = (0, Vec::new());
    for size in pieces.iter().cycle() {
        let piece = &bytes[at..bytes.len().min(at + size)];
        let passed = framing.advance(piece);
        at += passed;
        if passed < piece.len() || piece.is_empty() {
            break;
        }
        if matches!(framing.state, State::Head) && !framing.in_head() {
            ends.push(at);
        }
    }
    (ends, framing.fault())
}

/// Good requests with a few bytes changed, taken out or doubled.
fn nearly_good() -> impl Strategy<Value = Vec<u8>> {
    let changes =
        proptest::collection::vec((any::<proptest::sample::Index>(), 0_usize..3, 0_usize..12), 0..4);
    (proptest::collection::vec(request(), 1..4), changes).prop_map(|(requests, changes)| {
        let mut bytes: Vec<u8> = requests.iter().flat_map(|(text, _)| text.bytes()).collect();
        for (at, how, which) in changes {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = b"\r\n :;,+0af\0\x80"[which],
                1 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, bytes[at]),
            }
        }
        bytes
    })
}

proptest! {
    /// Another parser that is handed the bytes which pass finds the same requests in them, whatever was done to the
    /// bytes and however they were cut.
    #[test]
    fn what_passes_is_read_by_another_parser_in_the_same_way(
        bytes in nearly_good(),
        pieces in proptest::collection::vec(1_usize..60, 1..8),
    ) {
        let (ends, fault) = ends_by_framing(&bytes, &[1]);
        let (theirs, refused) = ends_by_httparse(&bytes);
        prop_assert!(ends.iter().zip(&theirs).all(|(a, b)| a == b), "{ends:?} but by httparse {theirs:?}");
        // Where one sees less, it is because it refuses what the other takes.
        prop_assert!(theirs.len() >= ends.len() || refused, "{ends:?} but by httparse {theirs:?}");
        prop_assert!(theirs.len() <= ends.len() || fault.is_some(), "{ends:?} but by httparse {theirs:?}");
        // However it is cut: the same requests pass whole, and a fault is found no later than byte by byte.
        let (passed, sooner, _) = feed(&bytes, &pieces);
        prop_assert!(fault.is_none() || sooner.is_some());
        prop_assert!(passed.len() >= ends.last().copied().unwrap_or(0));
        let (seen, _) = ends_by_framing(&bytes, &pieces);
        prop_assert!(seen.iter().all(|end| ends.contains(end)), "{seen:?} of {ends:?}");
    }

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
