//! A short run of the fuzz targets: over their seeds, and over messages that are nearly valid, in any pieces.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;

use crate::request_heads::request;
use crate::targets::{chunked_body, exchange, request_head, response_head};

type Target = fn(&[u8]);

/// The targets by name.
const TARGETS: [(&str, Target); 4] = [
    ("request_head", request_head),
    ("response_head", response_head),
    ("chunked_body", chunked_body),
    ("exchange", exchange),
];

#[test]
fn the_seeds_pass() {
    for (name, target) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
        let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() > 2, "{}", folder.display());
        for file in files {
            let data = fs::read(&file).unwrap();
            assert!(std::panic::catch_unwind(|| target(&data)).is_ok(), "{}", file.display());
        }
    }
}

/// Some bytes changed, removed or doubled.
fn mutated(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((any::<Index>(), 0_usize..3, 0_usize..12), 0..4);
    (bytes, changes).prop_map(|(mut bytes, changes)| {
        for (at, how, which) in changes {
            if bytes.is_empty() {
                break;
            }
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

/// A fuzz target's input: sizes of pieces, and bytes.
fn cut(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (proptest::collection::vec(1_usize..60, 0..8), bytes).prop_map(|(sizes, bytes)| {
        let mut input: String = sizes.iter().map(|size| format!("{size} ")).collect();
        input.push('\n');
        [input.into_bytes(), bytes].concat()
    })
}

fn pipeline() -> impl Strategy<Value = Vec<u8>> {
    let connection = prop_oneof![
        8 => Just(""),
        1 => Just("Connection: close\r\n"),
        1 => Just("connection: close\r\nConnection: x, keep-alive\r\n"),
        1 => Just("Expect: 100-continue\r\n"),
    ];
    let requests = proptest::collection::vec((request(), connection), 1..4);
    requests.prop_map(|requests| {
        let texts = requests
            .iter()
            .map(|((text, _), field)| text.replacen("Host: x\r\n", &format!("{field}Host: x\r\n"), 1));
        texts.collect::<String>().into_bytes()
    })
}

fn response() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => Just("HTTP/1.1 200 OK\r\n"),
        1 => Just("HTTP/1.0 404 Gone Fishing\r\n"),
        1 => Just("HTTP/1.1 204\r\n"),
        1 => Just("HTTP/1.1  200   OK\r\nX : y\r\n"),
        1 => Just("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 304 \n"),
    ];
    let framing = prop_oneof![
        Just("Content-Length: 4\r\n"),
        Just("Content-Length: 4, 4\r\nContent-Length: 4\r\n"),
        Just("Transfer-Encoding: chunked\r\nConnection: close\r\n"),
        Just("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"),
        Just("Transfer-Encoding : ,\tChunked ,\r\n"),
        Just("X: y\n"),
    ];
    let body = prop_oneof![
        Just("body"),
        Just("4\r\nbody\r\n0\r\n\r\n"),
        Just("2;a\r\nbo\r\n02\r\ndy\r\n0\r\nX: 1\r\n\r\n"),
        Just("2 ;a=\"b\"\r\nbo\r\n00000000000000000002\t \r\ndy\n0\nX: 1\n\n")
    ];
    (line, framing, body).prop_map(|(line, framing, body)| format!("{line}{framing}\r\n{body}").into_bytes())
}

fn chunks() -> impl Strategy<Value = Vec<u8>> {
    let chunk = ("[a-z]{1,20}", "0{0,2}", "[ \t]{0,2}(;[a-z]{1,5}=(\"[a-z; ]{0,5}\"|[a-z]{0,5}))?");
    let trailers = prop_oneof![Just(""), Just("X: 1\r\n"), Just("a:\r\nb: c d \r\na: \t2\r\n")];
    (proptest::collection::vec(chunk, 0..4), trailers).prop_map(|(chunks, trailers)| {
        let chunk = |(data, zeros, extension): &(String, String, String)| {
            format!("{zeros}{:x}{extension}\r\n{data}\r\n", data.len())
        };
        let chunks: String = chunks.iter().map(chunk).collect();
        format!("{chunks}0\r\n{trailers}\r\nnext").into_bytes()
    })
}

proptest! {
    #[test]
    fn requests_are_read_as_the_reference_reads_them(data in cut(mutated(pipeline()))) {
        request_head(&data);
        exchange(&data);
    }

    #[test]
    fn responses_are_read_as_the_reference_reads_them(data in cut(mutated(response()))) {
        response_head(&data);
    }

    #[test]
    fn chunked_bodies_are_read_as_the_reference_reads_them(data in cut(mutated(chunks()))) {
        chunked_body(&data);
    }

    #[test]
    fn any_bytes_are_read_as_the_reference_reads_them(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        for (_, target) in TARGETS {
            target(&data);
        }
    }
}
