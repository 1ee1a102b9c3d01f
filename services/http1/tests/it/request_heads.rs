//! Request heads and the bodies behind them: which are read, and which are refused.

use bytes::Bytes;
use proptest::prelude::*;

use hubspoke_http1::{BodyDecoder, HeadError, HeadLimits, MAX_FIELDS, RequestHeadReader};

const LIMITS: HeadLimits = HeadLimits { size: 1024, fields: 8, target: 100 };

/// A connection's requests, read as the server reads them.
struct Requests {
    heads: RequestHeadReader,
    body: BodyDecoder,
    /// Bytes taken so far, and after each request's last one.
    taken: usize,
    ends: Vec<usize>,
    began: usize,
    stopped: Option<Stopped>,
}

/// Why nothing more is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopped {
    At(HeadError),
    InBody,
}
use Stopped::{At, InBody};

impl Requests {
    fn take(&mut self, piece: &[u8]) {
        let mut bytes = Bytes::copy_from_slice(piece);
        let before = self.taken;
        while self.stopped.is_none() {
            if self.began > self.ends.len() {
                match self.body.decode(&mut bytes) {
                    Ok(_) if self.body.is_done() => self.ends.push(before + piece.len() - bytes.len()),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => self.stopped = Some(InBody),
                }
                continue;
            }
            match self.heads.read(&mut bytes) {
                Ok(Some(head)) => {
                    (self.body, self.began) = (head.body, self.began + 1);
                    if self.body.is_done() {
                        self.ends.push(before + piece.len() - bytes.len());
                    }
                }
                Ok(None) => break,
                Err(fault) => self.stopped = Some(At(fault)),
            }
        }
        self.taken += piece.len();
    }

    /// Whether it waits for a request, and has read nothing of one.
    fn is_between(&self) -> bool {
        self.stopped.is_none() && self.began == self.ends.len() && !self.heads.is_partial()
    }
}

/// Feeds `bytes` in pieces of the given sizes, again and again.
fn feed(bytes: &[u8], pieces: &[usize]) -> Requests {
    let mut requests = Requests {
        heads: RequestHeadReader::new(LIMITS),
        body: BodyDecoder::default(),
        taken: 0,
        ends: Vec::new(),
        began: 0,
        stopped: None,
    };
    let mut rest = bytes;
    for size in pieces.iter().cycle() {
        let (piece, after) = rest.split_at((*size).min(rest.len()));
        requests.take(piece);
        rest = after;
        if requests.stopped.is_some() || rest.is_empty() {
            break;
        }
    }
    requests
}

fn fault(head: &str) -> Option<Stopped> {
    feed(head.as_bytes(), &[usize::MAX]).stopped
}

#[test]
fn a_head_that_two_parsers_could_read_in_two_ways_is_no_request() {
    for (head, expected) in [
        (
            "GET /a HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            HeadError::LengthAndCoding,
        ),
        (
            "GET /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            HeadError::LengthAndCoding,
        ),
        ("GET /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", HeadError::ContentLength),
        ("GET /a HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", HeadError::ContentLength),
        ("GET /a HTTP/1.1\r\nContent-Length: +1\r\n\r\n", HeadError::ContentLength),
        ("GET /a HTTP/1.1\r\nContent-Length: -1\r\n\r\n", HeadError::ContentLength),
        ("GET /a HTTP/1.1\r\nContent-Length: 0x1\r\n\r\n", HeadError::ContentLength),
        ("GET /a HTTP/1.1\r\nContent-Length:\r\n\r\n", HeadError::ContentLength),
        ("GET /a HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n", HeadError::ContentLength),
        ("GET /a HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", HeadError::TransferCoding),
        ("GET /a HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", HeadError::TransferCoding),
        ("GET /a HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", HeadError::TransferCoding),
        ("GET /a HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n", HeadError::TransferCoding),
        ("GET /a HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", HeadError::TransferCoding),
        ("GET /a HTTP/1.1\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", HeadError::TransferCoding),
        (
            "GET /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            HeadError::TransferCoding,
        ),
        ("GET /a HTTP/1.1\r\nTransfer_Encoding: chunked\r\n\r\n", HeadError::DisguisedField),
        ("GET /a HTTP/1.1\r\nTransfer---Encoding: chunked\r\n\r\n", HeadError::DisguisedField),
        ("GET /a HTTP/1.1\r\ncontent_length: 1\r\n\r\n", HeadError::DisguisedField),
        ("GET /a HTTP/1.1\r\n-Content.Length: 1\r\n\r\n", HeadError::DisguisedField),
        ("GET /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", HeadError::CodingInHttp10),
        ("GET /a HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n", HeadError::Syntax),
        ("GET /a HTTP/1.1\r\nA: b\r\n c\r\n\r\n", HeadError::Syntax),
        ("GET /a HTTP/1.1\r\nA: b\0c\r\n\r\n", HeadError::Syntax),
        ("GET /a HTTP/1.1\r\nA: b\rc\r\n\r\n", HeadError::Syntax),
        ("GET /a HTTP/1.1\r\nA b\r\n\r\n", HeadError::Syntax),
        ("GET /a HTTP/1.1\r\n: b\r\n\r\n", HeadError::Syntax),
        ("GET /a HTTP/1.1\nA: b\r\n\r\n", HeadError::BareLineFeed),
        ("GET /a HTTP/1.1\r\nA: b\n\r\n", HeadError::BareLineFeed),
        ("GET /a HTTP/1.1\r\nA: b\r\n\n", HeadError::BareLineFeed),
        ("\nGET /a HTTP/1.1\r\nA: b\r\n\r\n", HeadError::BareLineFeed),
        ("GET  /a HTTP/1.1\r\n\r\n", HeadError::Syntax),
        ("GET /a b HTTP/1.1\r\n\r\n", HeadError::Version),
        ("GET /a\r\n\r\n", HeadError::Syntax),
        ("GET /a HTTP/1.2\r\n\r\n", HeadError::Version),
        ("GET /a HTTP/9.9\r\n\r\n", HeadError::Version),
        ("GET /a#b HTTP/1.1\r\n\r\n", HeadError::Target),
        ("GET http://[::1/ HTTP/1.1\r\n\r\n", HeadError::Target),
        ("G\u{e9}T /a HTTP/1.1\r\n\r\n", HeadError::Syntax),
    ] {
        for pieces in [usize::MAX, 1] {
            let requests = feed(head.as_bytes(), &[pieces]);
            assert_eq!((requests.stopped, requests.began), (Some(At(expected)), 0), "{head:?}");
        }
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
            let requests = feed(head.as_bytes(), pieces);
            assert!(requests.is_between(), "{head:?}");
            assert_eq!(requests.ends, [head.len()], "{head:?}");
        }
    }
}

#[test]
fn empty_lines_before_a_request_are_skipped_however_many() {
    let text = format!("{}GET /a HTTP/1.1\r\n\r\n", "\r\n".repeat(5000));
    for pieces in [1, 3, 10, 500] {
        let requests = feed(text.as_bytes(), &[pieces]);
        assert_eq!((requests.stopped, &requests.ends[..]), (None, &[text.len()][..]), "{pieces}");
    }
    for pieces in [1, 2, 5, 500] {
        for lines in ["\n\n", "\r\n\n\r\n"] {
            let stopped = feed(format!("{lines}GET /a HTTP/1.1\r\n\r\n").as_bytes(), &[pieces]).stopped;
            assert_eq!(stopped, Some(At(HeadError::BareLineFeed)), "{lines:?} {pieces}");
        }
    }
}

#[test]
fn a_head_tells_whether_the_connection_persists_and_the_body_waits() {
    for (head, keep_alive, expect_continue) in [
        ("GET /a HTTP/1.1\r\n\r\n", true, false),
        ("GET /a HTTP/1.1\r\nConnection: x, Close\r\n\r\n", false, false),
        ("GET /a HTTP/1.1\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n", false, false),
        ("GET /a HTTP/1.0\r\n\r\n", false, false),
        ("GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true, false),
        ("PUT /a HTTP/1.1\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n", true, true),
        ("PUT /a HTTP/1.1\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n", true, false),
        ("PUT /a HTTP/1.1\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n\r\n", true, true),
        ("PUT /a HTTP/1.1\r\nContent-Length: 1\r\nExpect: something\r\n\r\n", true, false),
        // It would take the interim response for the final one (RFC 9110, 10.1.1).
        ("PUT /a HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n", false, false),
    ] {
        let head =
            RequestHeadReader::new(LIMITS).read(&mut Bytes::from_static(head.as_bytes())).unwrap().unwrap();
        assert_eq!((head.keep_alive, head.expect_continue), (keep_alive, expect_continue), "{head:?}");
    }
}

#[test]
fn bytes_are_not_kept_after_their_last_request() {
    for (text, is_request) in [
        ("GET /a HTTP/1.1\r\n\r\n", true),
        ("PUT /a HTTP/1.1\r\nContent-Length: 1\r\n\r\na", true),
        ("PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", true),
        ("GET /a HTTP/1.1\r\nHost: ", false),
        ("\r\n\r\n", false),
    ] {
        let read = Bytes::copy_from_slice(text.as_bytes());
        let mut bytes = read.clone();
        let head = RequestHeadReader::new(LIMITS).read(&mut bytes).unwrap();
        assert_eq!(head.is_some(), is_request, "{text:?}");
        let mut body = head.map(|head| head.body).unwrap_or_default();
        while !body.is_done() {
            body.decode(&mut bytes).unwrap();
        }
        assert!(bytes.is_empty() && read.is_unique(), "{text:?}");
    }
}

#[test]
fn limits_hold() {
    let long = |n: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(n));
    assert_eq!(fault(&long(99)), None);
    assert_eq!(fault(&long(100)), Some(At(HeadError::TargetTooLong)));
    assert_eq!(feed(long(5000).as_bytes(), &[10]).stopped, Some(At(HeadError::TargetTooLong)));
    let fields = |n: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(n));
    assert_eq!(fault(&fields(8)), None);
    assert_eq!(fault(&fields(9)), Some(At(HeadError::TooManyFields)));
    let large = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(1020));
    assert_eq!(fault(&large), Some(At(HeadError::TooLarge)));
    let endless = large.trim_end();
    for pieces in [usize::MAX, 100, 1] {
        assert_eq!(feed(endless.as_bytes(), &[pieces]).stopped, Some(At(HeadError::TooLarge)), "{pieces}");
    }
    assert_eq!(feed(large.as_bytes(), &[10]).stopped, Some(At(HeadError::TooLarge)));
}

#[test]
fn more_fields_than_possible_is_as_many_as_possible() {
    let limits = HeadLimits { size: 1 << 20, fields: usize::MAX, target: 100 };
    for (count, is_read) in [(MAX_FIELDS, true), (MAX_FIELDS + 1, false)] {
        let mut bytes = Bytes::from(format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count)));
        assert_eq!(RequestHeadReader::new(limits).read(&mut bytes).is_ok(), is_read, "{count}");
    }
}

#[test]
fn a_smuggled_second_request_is_withheld_but_the_first_is_not() {
    let first = "POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
    let second = "POST /a HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let requests = feed(format!("{first}{second}").as_bytes(), &[usize::MAX]);
    assert_eq!((requests.began, &requests.ends[..]), (1, &[first.len()][..]));
    assert_eq!(requests.stopped, Some(At(HeadError::LengthAndCoding)));
}

#[test]
fn a_malformed_chunk_stops_the_stream() {
    for body in
        ["x\r\n", "\r\n", "3 \r\nabc", "3\nabc\r\n", "3\r\nabcd\r\n", "3\r\nabc0\r\n", "1;a\0\r\n", "-1\r\n"]
    {
        let request = format!("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}0\r\n\r\n");
        assert_eq!(fault(&request), Some(InBody), "{body:?}");
    }
    for size in ["0000000000000001", "fffffffffffffffff"] {
        let request =
            format!("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\na\r\n0\r\n\r\n");
        assert_eq!(fault(&request), Some(InBody), "{size}");
    }
}

/// A request, and whether it is good.
pub(crate) fn request() -> impl Strategy<Value = (String, bool)> {
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
    /// However a pipeline is cut into reads: its good requests before the first bad one are read, and nothing else.
    #[test]
    fn cuts_change_nothing(
        requests in proptest::collection::vec(request(), 1..6),
        pieces in proptest::collection::vec(1_usize..60, 1..8),
    ) {
        let text: String = requests.iter().map(|(text, _)| text.as_str()).collect();
        let good = requests.iter().take_while(|(_, good)| *good);
        let ends: Vec<usize> = good
            .scan(0, |end, (text, _)| {
                *end += text.len();
                Some(*end)
            })
            .collect();
        let fed = feed(text.as_bytes(), &pieces);
        prop_assert_eq!(fed.began, ends.len());
        prop_assert_eq!(&fed.ends, &ends);
        prop_assert_eq!(fed.is_between(), ends.len() == requests.len());
    }

    #[test]
    fn no_bytes_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        pieces in proptest::collection::vec(1_usize..60, 1..8),
    ) {
        let requests = feed(&bytes, &pieces);
        prop_assert!(requests.taken == bytes.len() || requests.stopped.is_some());
    }
}
