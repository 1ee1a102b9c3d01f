//! Server-sent events.

use hubspoke_protocol::sse::{Event, EventWriter, Parser, Splitter, comment, fields};
use proptest::prelude::*;

const MAX: usize = 1 << 20;

fn parse(text: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    Parser::new(MAX).feed(text, &mut events).unwrap();
    events
}

fn event(name: &str, id: &str, data: &str) -> Event {
    Event { name: name.to_owned(), id: id.to_owned(), data: data.to_owned() }
}

/// Every block, or `None` for one that was too long.
fn blocks<'a>(splitter: &mut Splitter, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Option<String>> {
    let mut all = Vec::new();
    for piece in pieces {
        splitter.push(piece);
        while let Some(block) = splitter.next_block() {
            all.push(block.ok().map(|block| String::from_utf8(block.to_vec()).unwrap()));
        }
    }
    all
}

/// `text` in pieces of the lengths `cuts`, over and over.
fn cut<'a>(text: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let (mut rest, mut pieces, mut cuts) = (text, Vec::new(), cuts.iter().cycle());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

#[test]
fn events_by_the_standard() {
    assert_eq!(
        parse(b"data: a\n\ndata:b\ndata:  c\n\n"),
        [event("message", "", "a"), event("message", "", "b\n c")]
    );
    assert_eq!(
        parse(b"event: x\nid: 1.2\ndata: a\n\ndata: b\n\n"),
        [event("x", "1.2", "a"), event("message", "1.2", "b")]
    );
    assert_eq!(parse(b"\xef\xbb\xbf: hello\n\ndata\n\n"), [event("message", "", "")]);
    assert_eq!(parse(b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n"), [event("message", "", "a")]);
    assert_eq!(parse(b"event: nothing\n\ndata: unfinished\n"), []);
    assert_eq!(parse(b"id: a\0b\nfoo: x\nretry: 3\ndata: a:b\n\n"), [event("message", "", "a:b")]);
}

#[test]
fn an_endless_event_is_refused() {
    let mut parser = Parser::new(MAX);
    let mut fed = 0;
    let chunk = vec![b'x'; 1 << 10];
    while parser.feed(&chunk, &mut Vec::new()).is_ok() {
        fed += chunk.len();
        assert!(fed <= MAX);
    }
    assert_eq!(fed, MAX);
}

#[test]
fn a_block_that_is_too_long_is_skipped_and_the_next_one_is_not() {
    let mut splitter = Splitter::new(16);
    let pieces = ["data: 0123456789", "0123456789", "0123456789\n", "\ndata: a\n\n"].map(str::as_bytes);
    assert_eq!(blocks(&mut splitter, pieces), [None, Some("data: a\n\n".to_owned())]);
    assert_eq!(blocks(&mut splitter, [&b"data: 0123456789\n\n\n"[..]]), [None]);
}

#[test]
fn the_fields_of_a_block() {
    let id = |block| fields(block).find_map(|(name, value)| (name == b"id").then_some(value));
    assert_eq!(id(b"id: log-1:7\ndata: {}\n\n"), Some(&b"log-1:7"[..]));
    assert_eq!(id(b"event: x\nid:7\n\n"), Some(&b"7"[..]));
    assert_eq!(id(b"id\r\n\r\n"), Some(&b""[..]));
    assert_eq!(id(b": id: 7\n\n"), None);
    assert_eq!(id(b"data: id: 7\n\n"), None);
    assert_eq!(fields(b": alive\n\n").collect::<Vec<_>>(), [(&b""[..], &b"alive"[..])]);
}

#[test]
fn a_comment_is_a_block_without_an_event() {
    assert_eq!((comment(""), comment("alive")), (":\n\n".to_owned(), ": alive\n\n".to_owned()));
    assert_eq!(parse((comment("a") + "data: b\n\n").as_bytes()), [event("message", "", "b")]);
}

proptest! {
    #[test]
    fn what_is_written_is_read_however_it_is_cut(
        list in prop::collection::vec(("[a-z]{1,4}", "[a-z0-9.]{1,4}", "[ -~é]{0,9}(\n[ -~é]{0,9}){0,2}"), 0..5),
        end in prop::sample::select(vec!["\n", "\r", "\r\n"]),
        cuts in prop::collection::vec(1_usize..9, 1..40),
    ) {
        let mut text = Vec::new();
        for (name, id, data) in &list {
            EventWriter::new(&mut text).name(name).id(id).data(data.replace('\n', end).as_bytes());
        }
        let text = String::from_utf8(text).unwrap().replace('\n', end);
        let mut parser = Parser::new(MAX);
        let mut events = Vec::new();
        for piece in cut(text.as_bytes(), &cuts) {
            parser.feed(piece, &mut events).unwrap();
        }
        let expected: Vec<_> = list.iter().map(|(name, id, data)| event(name, id, data)).collect();
        prop_assert_eq!(events, expected);
    }

    #[test]
    fn blocks_are_as_they_came_however_they_are_cut(
        texts in prop::collection::vec("[a-z]{1,40}", 0..20),
        cuts in prop::collection::vec(1_usize..30, 1..200),
    ) {
        let all: Vec<_> = texts.iter().map(|text| format!("data: {text}\n\n")).collect();
        let mut splitter = Splitter::new(30);
        let found = blocks(&mut splitter, cut(all.concat().as_bytes(), &cuts));
        let expected: Vec<_> = all.into_iter().map(|block| (block.len() <= 30).then_some(block)).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cuts in prop::collection::vec(1_usize..9, 1..9)) {
        let mut parser = Parser::new(50);
        for piece in cut(&bytes, &cuts) {
            let _ = parser.feed(piece, &mut Vec::new());
        }
    }
}
