use proptest::prelude::*;

use super::line::{head, parse};
use super::*;

/// The stored lines of a batch, as the writer of instance `log-1` renders them at `at`.
pub(crate) fn render_at(batch: &Batch, at: Timestamp, first_seq: u64) -> Vec<u8> {
    let (ts, instance) = (timestamp(at), instance_key("log-1"));
    let mut out = Vec::new();
    batch.render(&mut out, &Stamp { ts: ts.as_bytes(), instance: &instance }, first_seq);
    out
}

fn render(batch: &Batch, first_seq: u64) -> Vec<u8> {
    render_at(batch, "2026-11-23T08:07:11.1234567Z".parse().unwrap(), first_seq)
}

#[test]
fn keys_are_in_order_and_text_is_stored_as_sent() {
    let meta = EntryMeta {
        source: Some("visit"),
        source_id: Some("visit-9"),
        client: None,
        claimed: Some("cart"),
        claimed_id: Some("cart-1"),
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
        level: Some(Level::Warn),
        ..EntryMeta::default()
    };
    let mut batch = Batch::new(Some("k\"1".to_owned()));
    batch.push(&meta, "two\nlines \u{1b}[31m ü".as_bytes(), Some("{\"a\":\n1}"));
    batch.push(&EntryMeta::default(), b"x", None);
    let text = String::from_utf8(render(&batch, 7)).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"ts":"2026-11-23T08:07:11.123456Z","seq":7,"instance":"log-1","key":"k\"1","part":0,"of":2,"#,
            r#""source":"visit","source_id":"visit-9","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","#,
            r#""claimed":"cart","claimed_id":"cart-1","level":"warn","msg":"two\nlines \u001b[31m ü","fields":{"a": 1}}"#,
            "\n",
            r#"{"ts":"2026-11-23T08:07:11.123456Z","seq":8,"instance":"log-1","key":"k\"1","part":1,"of":2,"msg":"x"}"#,
            "\n"
        )
    );
}

#[test]
fn a_batch_is_identified_by_sender_key_and_content_but_not_by_trace_and_own_keys() {
    let hash = KeyedHash::default();
    let id = |meta: EntryMeta<'_>, key: &str, texts: &[&str]| {
        let mut batch = Batch::new(Some(key.to_owned()));
        texts.iter().for_each(|text| batch.push(&meta, text.as_bytes(), None));
        batch.id(&hash).unwrap()
    };
    let visit = EntryMeta { source: Some("visit"), source_id: Some("visit-1"), ..EntryMeta::default() };
    let first = id(visit, "k", &["a", "b"]);
    let traced = EntryMeta { trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736"), ..visit };
    assert_eq!(id(traced, "k", &["a", "b"]), first);
    for other in [
        id(EntryMeta { source_id: None, ..visit }, "k", &["a", "b"]),
        id(EntryMeta { client: Some("10.0.0.7"), ..EntryMeta::default() }, "k", &["a", "b"]),
        id(EntryMeta { claimed: Some("visit"), ..EntryMeta::default() }, "k", &["a", "b"]),
        id(visit, "l", &["a", "b"]),
    ] {
        assert_ne!(other.key, first.key);
    }
    for other in [
        id(visit, "k", &["a"]),
        id(visit, "k", &["a", "c"]),
        id(visit, "k", &["b", "a"]),
        id(visit, "k", &["ab", ""]),
        id(EntryMeta { level: Some(Level::Warn), ..visit }, "k", &["a", "b"]),
        id(EntryMeta { claimed: Some("x"), ..visit }, "k", &["a", "b"]),
        id(EntryMeta { time: Some(Timestamp::UNIX_EPOCH), ..visit }, "k", &["a", "b"]),
    ] {
        assert_eq!(other.key, first.key);
        assert_ne!(other.content, first.content);
    }
    assert_eq!(Batch::one(&visit, b"a", None).id(&hash), None);
}

#[test]
fn a_line_that_is_not_an_entry_has_no_head() {
    for line in [
        "",
        "{}",
        "hello",
        "{\"ts\":\"2026\",\"seq\":1}",
        "{\"ts\":\"2026-11-23T08:07:11.123456Z\",\"seq\":x,",
    ] {
        assert_eq!(head(line.as_bytes()), None, "{line}");
    }
}

proptest! {
    #[test]
    fn any_bytes_survive_on_one_line(msg in proptest::collection::vec(any::<u8>(), 0..200)) {
        let lines = render(&Batch::one(&EntryMeta::default(), &msg, None), 3);
        prop_assert_eq!(lines.iter().filter(|b| **b == b'\n').count(), 1);
        prop_assert_eq!(head(&lines).unwrap().seq, 3);
        let value: serde_json::Value = serde_json::from_slice(&lines).unwrap();
        let stored = match value.get("msg_base64") {
            Some(exact) => STANDARD.decode(exact.as_str().unwrap()).unwrap(),
            None => value["msg"].as_str().unwrap().as_bytes().to_vec(),
        };
        prop_assert_eq!(stored, msg);
    }

    #[test]
    fn any_text_is_read_back_as_sent(msg in any::<String>(), source in "[a-z]{1,9}", key in any::<String>()) {
        let meta = EntryMeta { source: Some(&source), ..EntryMeta::default() };
        let lines = render(&Batch::one(&meta, msg.as_bytes(), Some(key.clone())), 1);
        let line = parse(&lines).unwrap();
        prop_assert_eq!(&*line.msg, msg);
        prop_assert_eq!(line.source.as_deref(), Some(source.as_str()));
        prop_assert_eq!(line.key.as_deref(), Some(key.as_str()));
    }

    #[test]
    fn a_torn_head_is_never_misread(cut in 0_usize..60) {
        let lines = render(&Batch::one(&EntryMeta::default(), b"x", None), 123_456);
        let torn = &lines[..cut.min(lines.len() - 1)];
        prop_assert!(head(torn).is_none_or(|head| head.seq == 123_456));
    }
}

proptest! {
    #[test]
    fn the_formatter_agrees_with_plain_formatting(
        micros in proptest::collection::vec(prop_oneof![-3_000_000_i64..3_000_000, 1_790_000_000_000_000_i64..1_790_000_002_000_000], 1..20),
    ) {
        let mut formatter = TimestampFormatter::default();
        for micros in micros {
            let at = Timestamp::from_microsecond(micros).unwrap();
            prop_assert_eq!(std::str::from_utf8(formatter.format(at)).unwrap(), timestamp(at));
        }
    }
}
