use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::entry::{Stamp, instance_field, timestamp};

const BOUNDS: Bounds = Bounds { max_entry: 100, max_entries: 300 };

fn read(kind: Kind, sender: &Sender, body: &[u8]) -> Result<(Vec<Value>, Failures), IngestError> {
    let parsed = parse(kind, sender, body, BOUNDS)?;
    let mut out = Vec::new();
    let instance = instance_field("log-1");
    parsed.batch.render(
        &mut out,
        &Stamp { ts: timestamp(Timestamp::UNIX_EPOCH).as_bytes(), instance: &instance },
        1,
    );
    let text = String::from_utf8(out).unwrap();
    Ok((text.lines().map(without_stamp).collect(), parsed.refused))
}

/// The entry without what the writer adds.
fn without_stamp(line: &str) -> Value {
    let mut entry: Value = serde_json::from_str(line).unwrap();
    let keys = entry.as_object_mut().unwrap();
    keys.retain(|key, _| !["ts", "seq", "instance"].contains(&key.as_str()));
    entry
}

#[test]
fn text_is_one_entry_as_sent() {
    let sender = Sender { source: Some("visit".into()), level: Some(Level::Warn), ..Sender::default() };
    let (entries, _) = read(Kind::Text, &sender, b"{\"msg\":\"not read\"}\n").unwrap();
    assert_eq!(entries, [json!({"source": "visit", "level": "warn", "msg": "{\"msg\":\"not read\"}\n"})]);
    assert_eq!(read(Kind::Text, &sender, b""), Err(IngestError::Empty));
    assert_eq!(read(Kind::Text, &sender, &[b'x'; 101]), Err(IngestError::TooLong { limit: 100 }));
    assert!(read(Kind::Text, &sender, &[b'x'; 100]).is_ok());
}

#[test]
fn json_values_keep_all_they_say() {
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    for (value, entry) in [
        (r#""a \n b""#.to_owned(), json!({"msg": "a \n b"})),
        (r#"{"msg":"m","level":"WARN"}"#.to_owned(), json!({"msg": "m", "level": "warn"})),
        (r#"{"level":30,"message":"m"}"#.to_owned(), json!({"msg": "m", "fields": {"level": 30}})),
        (format!(r#"{{"msg":"m","trace_id":"{trace}"}}"#), json!({"msg": "m", "trace_id": trace})),
        (r#"{"msg":"m","trace_id":"x"}"#.to_owned(), json!({"msg": "m", "fields": {"trace_id": "x"}})),
        (
            r#"{"msg":"m","source":"nginx","n":1.50}"#.to_owned(),
            json!({"msg": "m", "source": "nginx", "fields": {"n": 1.5}}),
        ),
        (r#"{"msg":"m","fields":{"a":1}}"#.to_owned(), json!({"msg": "m", "fields": {"a": 1}})),
        (
            r#"{"msg":"m","level":"info","key":"k","fields":{"a":1},"b":2}"#.to_owned(),
            json!({"msg": "m", "level": "info", "key": "k", "fields": {"a": 1, "b": 2}}),
        ),
        (r#"{"msg":"m","fields":{}}"#.to_owned(), json!({"msg": "m"})),
        (r#"{"msg":1,"a":2}"#.to_owned(), json!({"msg": r#"{"msg":1,"a":2}"#})),
        (r#"{"log":"x"}"#.to_owned(), json!({"msg": r#"{"log":"x"}"#})),
        ("17".to_owned(), json!({"msg": "17"})),
    ] {
        let expected = [entry];
        let read = |kind, body: &str| read(kind, &Sender::default(), body.as_bytes()).unwrap().0;
        assert_eq!(read(Kind::Lines, &value), expected, "{value}");
        assert_eq!(read(Kind::Json, &value), expected, "{value}");
        assert_eq!(read(Kind::Json, &format!("[ {value} ]")), expected, "{value}");
    }
}

#[test]
fn the_lines_that_cant_be_taken_are_told_one_by_one() {
    let long = "x".repeat(101);
    let body = format!("\"one\"\r\n\n{{broken\n\"\"\n\"{long}\"\n[1] 2\n\"\u{fffd}\"\n");
    let mut body = body.into_bytes();
    let at = body.windows(3).position(|three| three == "\u{fffd}".as_bytes()).unwrap();
    body.splice(at..at + 3, [0xff]);
    let (entries, refused) = read(Kind::Lines, &Sender::default(), &body).unwrap();
    assert_eq!(entries, [json!({"msg": "one"})]);
    let statuses: Vec<_> = refused.named.iter().map(|refused| (refused.line, refused.status)).collect();
    assert_eq!(statuses, [(3, 400), (4, 400), (5, 413), (6, 400), (7, 400)]);
    assert!(
        matches!(read(Kind::Lines, &Sender::default(), b"{\n{"), Err(IngestError::Nothing(all)) if all.count == 2)
    );
    assert_eq!(read(Kind::Lines, &Sender::default(), b"\n \n"), Err(IngestError::Empty));
    assert!(matches!(read(Kind::Json, &Sender::default(), b"[1, 2"), Err(IngestError::Json(_))));
    assert_eq!(read(Kind::Json, &Sender::default(), b"[]"), Err(IngestError::Empty));
}

#[test]
fn a_batch_has_a_bounded_number_of_entries_whether_good_or_bad() {
    let too_many = Err(IngestError::TooMany { limit: 300, what: "entries" });
    let read = |kind, body: String| read(kind, &Sender::default(), body.as_bytes());
    for line in ["1\n", "{\n", "\n \n1\n"] {
        assert_ne!(read(Kind::Lines, line.repeat(300)), too_many, "{line:?}");
        assert_eq!(read(Kind::Lines, line.repeat(301)), too_many, "{line:?}");
    }
    let list = |count: usize| format!("[{}1]", "1,".repeat(count - 1));
    assert_eq!(read(Kind::Json, list(300)).unwrap().0.len(), 300);
    assert_eq!(read(Kind::Json, list(301)), too_many);
    assert!(matches!(read(Kind::Json, list(2) + "x"), Err(IngestError::Json(_))));

    let (entries, refused) = read(Kind::Lines, "1\n".to_owned() + &"{\n".repeat(299)).unwrap();
    assert_eq!((entries.len(), refused.named.len(), refused.count), (1, NAMED, 299));
    assert_eq!(refused.named.last().unwrap().line, NAMED + 1);
}

#[test]
fn a_value_far_longer_than_an_entry_is_not_looked_at() {
    let object = format!("{{\"msg\":\"m\"{}}}", ",\"\":1".repeat(400));
    let (_, refused) = read(Kind::Lines, &Sender::default(), format!("1\n{object}").as_bytes()).unwrap();
    assert_eq!((refused.named[0].line, refused.named[0].status), (2, 413));
    // The longest way to write an entry that fits.
    let escaped = format!("{{\"msg\":\"{}\"}}", "\\u0001".repeat(100));
    assert_eq!(read(Kind::Lines, &Sender::default(), escaped.as_bytes()).unwrap().0.len(), 1);
}

#[test]
fn the_requests_own_source_counts_before_a_lines() {
    let sender = Sender { source: Some("visit".into()), ..Sender::default() };
    let (entries, _) = read(Kind::Lines, &sender, br#"{"msg":"m","source":"forged"}"#).unwrap();
    assert_eq!(entries, [json!({"source": "visit", "msg": "m", "fields": {"source": "forged"}})]);
}

#[test]
fn content_types_say_the_kind() {
    assert_eq!(Kind::of(Some("application/x-ndjson; charset=utf-8")), Kind::Lines);
    assert_eq!(Kind::of(Some("Application/JSON")), Kind::Json);
    for text in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("")] {
        assert_eq!(Kind::of(text), Kind::Text);
    }
}

#[test]
fn trace_parents_are_read_by_the_standard() {
    let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert_eq!(trace_id(valid), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    assert_eq!(trace_id(&format!("01{}-more", &valid[2..])), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    for invalid in [
        "",
        "00-4bf9-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
    ] {
        assert_eq!(trace_id(invalid), None, "{invalid}");
    }
}

proptest! {
    #[test]
    fn no_body_is_too_odd(body in proptest::collection::vec(any::<u8>(), 0..300), lines in any::<bool>()) {
        let kind = if lines { Kind::Lines } else { Kind::Json };
        if let Ok((entries, _)) = read(kind, &Sender::default(), &body) {
            prop_assert!(!entries.is_empty());
        }
    }

    #[test]
    fn every_line_is_an_entry_or_refused(texts in proptest::collection::vec(".{0,120}", 1..20)) {
        let body: Vec<String> = texts.iter().map(|text| serde_json::to_string(text).unwrap()).collect();
        let good: Vec<Value> = texts.iter().filter(|text| (1..=100).contains(&text.len())).map(|text| json!({"msg": text})).collect();
        match read(Kind::Lines, &Sender::default(), body.join("\n").as_bytes()) {
            Ok((entries, refused)) => {
                prop_assert_eq!(&entries, &good);
                prop_assert_eq!(entries.len() + refused.count, texts.len());
            }
            Err(IngestError::Nothing(refused)) => prop_assert!(good.is_empty() && refused.count == texts.len()),
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}
