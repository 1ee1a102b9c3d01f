use bytes::Bytes;
use proptest::prelude::*;

use super::*;

proptest! {
    /// However a chunked body is cut: content, trailers and end are the same, and what follows is left alone.
    #[test]
    fn chunks_are_content_in_any_pieces(
        chunks in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 1..40), "(;[a-z=]{0,8})?"), 0..8),
        trailers in proptest::collection::vec("[a-z]{1,8}: [a-z ]{0,8}[a-z]", 0..3),
        cuts in proptest::collection::vec(1..20_usize, 1..60),
    ) {
        let mut wire = Vec::new();
        let mut content: Vec<u8> = Vec::new();
        for (chunk, extension) in &chunks {
            wire.extend(format!("{:x}{extension}\r\n", chunk.len()).bytes());
            wire.extend(chunk);
            wire.extend(b"\r\n");
            content.extend(chunk);
        }
        wire.extend(b"0\r\n");
        wire.extend(trailers.iter().flat_map(|line| format!("{line}\r\n").into_bytes()));
        wire.extend(b"\r\nHTTP/1.1");
        let mut decoder = BodyDecoder::chunked();
        let (mut got, mut fields) = (Vec::<u8>::new(), 0);
        let mut cuts = cuts.into_iter().cycle();
        let mut bytes = Bytes::new();
        let mut wire = Bytes::from(wire);
        while !decoder.is_done() {
            match decoder.decode(&mut bytes).unwrap() {
                Some(frame) => match frame.into_data() {
                    Ok(data) => got.extend(data),
                    Err(frame) => fields = frame.into_trailers().unwrap().len(),
                },
                None if decoder.is_done() => break,
                None => {
                    prop_assert!(bytes.is_empty(), "bytes are left");
                    bytes = wire.split_to(cuts.next().unwrap().min(wire.len()));
                    prop_assert!(!bytes.is_empty(), "the body does not end");
                }
            }
        }
        prop_assert_eq!(got, content);
        prop_assert_eq!(fields, trailers.len());
        let rest: Vec<u8> = bytes.iter().chain(&wire).copied().collect();
        prop_assert_eq!(rest, b"HTTP/1.1");
    }
}
