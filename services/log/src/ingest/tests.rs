use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::parsed::MAX_LISTED;
use super::traceparent::trace_id;
use super::*;
use crate::entry::tests::render_at;

const LIMITS: IngestLimits = IngestLimits { max_entry: 100, max_entries: 300, max_encoded: 50_000 };

fn read(
    kind: BodyKind,
    request: &RequestMeta,
    body: &[u8],
) -> Result<(Vec<Value>, RejectedEntries), IngestError> {
    let parsed = parse(kind, request, body, LIMITS)?;
    let text = String::from_utf8(render_at(&parsed.batch, Timestamp::UNIX_EPOCH, 1)).unwrap();
    Ok((text.lines().map(without_stamp).collect(), parsed.rejected))
}

/// The entry without the keys that the writer adds.
fn without_stamp(line: &str) -> Value {
    let mut entry: Value = serde_json::from_str(line).unwrap();
    let keys = entry.as_object_mut().unwrap();
    keys.retain(|key, _| !["ts", "seq", "instance"].contains(&key.as_str()));
    entry
}

#[test]
fn text_is_one_entry_as_sent() {
    let request =
        RequestMeta { source: Some("visit".into()), level: Some(Level::Warn), ..RequestMeta::default() };
    let (entries, _) = read(BodyKind::Text, &request, b"{\"msg\":\"not parsed\"}\n").unwrap();
    assert_eq!(entries, [json!({"source": "visit", "level": "warn", "msg": "{\"msg\":\"not parsed\"}\n"})]);
    assert_eq!(read(BodyKind::Text, &request, b""), Err(IngestError::Empty));
    assert_eq!(read(BodyKind::Text, &request, &[b'x'; 101]), Err(IngestError::TooLong { limit: 100 }));
    assert!(read(BodyKind::Text, &request, &[b'x'; 100]).is_ok());
}

#[test]
fn nothing_in_a_json_value_is_lost() {
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    for (value, entry) in [
        (r#""a \n b""#.to_owned(), json!({"msg": "a \n b"})),
        (r#"{"msg":"m","level":"WARN"}"#.to_owned(), json!({"msg": "m", "level": "warn"})),
        (
            r#"{"level":30,"message":"m"}"#.to_owned(),
            json!({"msg": "m", "level": "info", "fields": {"level": 30}}),
        ),
        (
            r#"{"msg":"m","level":"crit"}"#.to_owned(),
            json!({"msg": "m", "level": "error", "fields": {"level": "crit"}}),
        ),
        (
            r#"{"msg":"m","levelname":"WARNING","levelno":30}"#.to_owned(),
            json!({"msg": "m", "level": "warn", "fields": {"levelname": "WARNING", "levelno": 30}}),
        ),
        (r#"{"msg":"m","level":"loud"}"#.to_owned(), json!({"msg": "m", "fields": {"level": "loud"}})),
        (format!(r#"{{"msg":"m","trace_id":"{trace}"}}"#), json!({"msg": "m", "trace_id": trace})),
        (r#"{"msg":"m","trace_id":"x"}"#.to_owned(), json!({"msg": "m", "fields": {"trace_id": "x"}})),
        (
            r#"{"msg":"m","source":"nginx","n":1.50}"#.to_owned(),
            json!({"msg": "m", "claimed": "nginx", "fields": {"n": 1.5}}),
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
        let read = |kind, body: &str| read(kind, &RequestMeta::default(), body.as_bytes()).unwrap().0;
        assert_eq!(read(BodyKind::Lines, &value), expected, "{value}");
        assert_eq!(read(BodyKind::Json, &value), expected, "{value}");
        assert_eq!(read(BodyKind::Json, &format!("[ {value} ]")), expected, "{value}");
    }
}

#[test]
fn a_credible_time_is_that_of_the_entry() {
    let arrival = "2026-11-23T08:00:00Z".parse().unwrap();
    let request = RequestMeta { arrival, ..RequestMeta::default() };
    let read = |body: &str| {
        let parsed = parse(BodyKind::Lines, &request, body.as_bytes(), LIMITS).unwrap();
        let line = render_at(&parsed.batch, arrival, 1);
        let entry: Value = serde_json::from_slice(&line).unwrap();
        ["ts", "received", "fields"].map(|key| entry[key].clone())
    };
    let (ts, event) = (json!("2026-11-23T08:00:00.000000Z"), json!("2026-11-23T07:59:58.500000Z"));
    let own = [event.clone(), ts.clone(), Value::Null];
    assert_eq!(read(r#"{"msg":"m","time":"2026-11-23T08:59:58.5+01:00"}"#), own);
    assert_eq!(read(r#"{"msg":"m","ts":1795420798.5}"#), own);
    assert_eq!(
        read(r#"{"msg":"m","ts":"?","timestamp":1795420798500}"#),
        [event, ts.clone(), json!({"ts": "?"})]
    );
    let future = json!({"time": "2026-11-23T08:00:01Z"});
    assert_eq!(read(r#"{"msg":"m","time":"2026-11-23T08:00:01Z"}"#), [ts.clone(), Value::Null, future]);
    let nanoseconds = read(r#"{"msg":"m","time":"2026-11-23T07:00:00.000000001Z"}"#);
    assert_eq!(nanoseconds[2], json!({"time": "2026-11-23T07:00:00.000000001Z"}), "nothing is lost");
    assert_eq!(nanoseconds[1], ts);
}

#[test]
fn invalid_lines_are_reported_one_by_one() {
    let long = "x".repeat(101);
    let body = format!("\"one\"\r\n\n{{broken\n\"\"\n\"{long}\"\n[1] 2\n\"\u{fffd}\"\n");
    let mut body = body.into_bytes();
    let at = body.windows(3).position(|three| three == "\u{fffd}".as_bytes()).unwrap();
    body.splice(at..at + 3, [0xff]);
    let (entries, rejected) = read(BodyKind::Lines, &RequestMeta::default(), &body).unwrap();
    assert_eq!(entries, [json!({"msg": "one"})]);
    let statuses: Vec<_> = rejected.listed.iter().map(|one| (one.line, one.status)).collect();
    assert_eq!(statuses, [(3, 400), (4, 400), (5, 413), (6, 400), (7, 400)]);
    assert!(
        matches!(read(BodyKind::Lines, &RequestMeta::default(), b"{\n{"), Err(IngestError::NoneAccepted(all)) if all.count == 2)
    );
    assert_eq!(read(BodyKind::Lines, &RequestMeta::default(), b"\n \n"), Err(IngestError::Empty));
    assert!(matches!(read(BodyKind::Json, &RequestMeta::default(), b"[1, 2"), Err(IngestError::Json(_))));
    assert_eq!(read(BodyKind::Json, &RequestMeta::default(), b"[]"), Err(IngestError::Empty));
}

#[test]
fn the_number_of_entries_is_bounded_whether_valid_or_not() {
    let too_many = Err(IngestError::TooMany { limit: 300, what: "entries" });
    let read = |kind, body: String| read(kind, &RequestMeta::default(), body.as_bytes());
    for line in ["1\n", "{\n", "\n \n1\n"] {
        assert_ne!(read(BodyKind::Lines, line.repeat(300)), too_many, "{line:?}");
        assert_eq!(read(BodyKind::Lines, line.repeat(301)), too_many, "{line:?}");
    }
    let list = |count: usize| format!("[{}1]", "1,".repeat(count - 1));
    assert_eq!(read(BodyKind::Json, list(300)).unwrap().0.len(), 300);
    assert_eq!(read(BodyKind::Json, list(301)), too_many);
    assert!(matches!(read(BodyKind::Json, list(2) + "x"), Err(IngestError::Json(_))));

    let (entries, rejected) = read(BodyKind::Lines, "1\n".to_owned() + &"{\n".repeat(299)).unwrap();
    assert_eq!((entries.len(), rejected.listed.len(), rejected.count), (1, MAX_LISTED, 299));
    assert_eq!(rejected.listed.last().unwrap().line, MAX_LISTED + 1);
}

#[test]
fn a_value_far_longer_than_an_entry_is_not_parsed() {
    let object = format!("{{\"msg\":\"m\"{}}}", ",\"\":1".repeat(400));
    let (_, rejected) =
        read(BodyKind::Lines, &RequestMeta::default(), format!("1\n{object}").as_bytes()).unwrap();
    assert_eq!((rejected.listed[0].line, rejected.listed[0].status), (2, 413));
    // The longest way to write an entry that fits.
    let escaped = format!("{{\"msg\":\"{}\"}}", "\\u0001".repeat(100));
    assert_eq!(read(BodyKind::Lines, &RequestMeta::default(), escaped.as_bytes()).unwrap().0.len(), 1);
}

#[test]
fn what_a_line_says_about_its_sender_is_a_claim() {
    let member = RequestMeta { source: Some("visit".into()), ..RequestMeta::default() };
    let client = RequestMeta {
        client: Some("10.0.0.7".into()),
        claimed: Some("cron".into()),
        ..RequestMeta::default()
    };
    let long = "x".repeat(201);
    for (request, line, entry) in [
        (
            &member,
            r#"{"msg":"m","source":"cart"}"#,
            json!({"source": "visit", "claimed": "cart", "msg": "m"}),
        ),
        (
            &client,
            r#"{"msg":"m","source":"visit"}"#,
            json!({"client": "10.0.0.7", "claimed": "visit", "msg": "m"}),
        ),
        (&client, r#""m""#, json!({"client": "10.0.0.7", "claimed": "cron", "msg": "m"})),
        (
            &client,
            r#"{"msg":"m","client":"10.0.0.8","claimed":"visit","source_id":"visit-1","instance":"log-2","source":7}"#,
            json!({"client": "10.0.0.7", "claimed": "cron", "msg": "m", "fields":
                {"client": "10.0.0.8", "claimed": "visit", "source_id": "visit-1", "instance": "log-2", "source": 7}}),
        ),
    ] {
        assert_eq!(read(BodyKind::Lines, request, line.as_bytes()).unwrap().0, [entry], "{line}");
    }
    let long = format!(r#"{{"msg":"m","source":"{long}"}}"#);
    let refused = read(BodyKind::Lines, &client, long.as_bytes());
    assert!(matches!(refused, Err(IngestError::NoneAccepted(_))), "it counts as a field: {refused:?}");
}

#[test]
fn the_content_type_decides_the_kind() {
    assert_eq!(BodyKind::of(Some("application/x-ndjson; charset=utf-8")), BodyKind::Lines);
    assert_eq!(BodyKind::of(Some("Application/JSON")), BodyKind::Json);
    for text in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("")] {
        assert_eq!(BodyKind::of(text), BodyKind::Text);
    }
}

#[test]
fn trace_parents_are_parsed_by_the_standard() {
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
    fn arbitrary_bodies_are_handled(body in proptest::collection::vec(any::<u8>(), 0..300), lines in any::<bool>()) {
        let kind = if lines { BodyKind::Lines } else { BodyKind::Json };
        if let Ok((entries, _)) = read(kind, &RequestMeta::default(), &body) {
            prop_assert!(!entries.is_empty());
        }
    }

    #[test]
    fn every_line_is_stored_or_rejected(texts in proptest::collection::vec(".{0,120}", 1..20)) {
        let body: Vec<String> = texts.iter().map(|text| serde_json::to_string(text).unwrap()).collect();
        let valid: Vec<Value> = texts.iter().filter(|text| (1..=100).contains(&text.len())).map(|text| json!({"msg": text})).collect();
        match read(BodyKind::Lines, &RequestMeta::default(), body.join("\n").as_bytes()) {
            Ok((entries, rejected)) => {
                prop_assert_eq!(&entries, &valid);
                prop_assert_eq!(entries.len() + rejected.count, texts.len());
            }
            Err(IngestError::NoneAccepted(rejected)) => {
                prop_assert!(valid.is_empty() && rejected.count == texts.len());
            }
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}
