use proptest::prelude::*;
use serde_json::json;

use super::super::entry::parse;
use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A stored entry as it is printed, without time and instance.
fn printed(format: &EntryFormat, keys: Value) -> String {
    let mut entry = json!({"ts": "T", "seq": 1, "instance": "i"});
    entry.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    let line = entry.to_string();
    let text = render(&parse(&line).unwrap(), &line, format, at("2026-11-26T12:00:00Z"));
    text.strip_prefix("T i ").expect("time and instance").to_owned()
}

fn cut(keys: Value) -> String {
    printed(&EntryFormat::default(), keys)
}

fn full(keys: Value) -> String {
    printed(&EntryFormat { full: true, ..EntryFormat::default() }, keys)
}

#[test]
fn an_entry_for_people() {
    let line = r#"{"ts":"2026-11-23T08:07:11.123456Z","seq":7,"instance":"log-1","source":"visit","level":"warn","msg":"visit 12","fields":{"a":1}}"#;
    let entry = parse(line).unwrap();
    let now = at("2026-11-23T20:00:00Z");
    let text = |format: &EntryFormat| render(&entry, line, format, now);
    let plain = EntryFormat::default();
    assert_eq!(text(&plain), "2026-11-23T08:07:11.123456Z log-1 visit warn: visit 12 a=1\n");
    assert_eq!(text(&EntryFormat { json: true, ..plain.clone() }), format!("{line}\n"));
    let colored = text(&EntryFormat { color: true, ..plain });
    assert!(
        colored.contains("Z \x1b[") && colored.ends_with("mlog-1\x1b[0m visit warn: visit 12 a=1\n"),
        "{colored:?}"
    );
}

#[test]
fn a_terminal_shows_local_times_and_the_date_unless_it_is_today() {
    let zone = TimeZone::fixed(jiff::tz::offset(2));
    for (ts, now, expected) in [
        ("2026-11-23T08:07:11.123456Z", "2026-11-23T20:00:00Z", "10:07:11.123"),
        ("2026-11-22T21:59:59.999999Z", "2026-11-23T20:00:00Z", "2026-11-22 23:59:59.999"),
        // Already the next day here.
        ("2026-11-22T22:00:00.000000Z", "2026-11-23T20:00:00Z", "00:00:00.000"),
        ("2026-11-23T20:00:00.000000Z", "2026-11-23T22:00:01Z", "2026-11-23 22:00:00.000"),
        ("2025-11-23T08:07:11.123456Z", "2026-11-23T20:00:00Z", "2025-11-23 10:07:11.123"),
        ("not a time", "2026-11-23T20:00:00Z", "not a time"),
    ] {
        assert_eq!(time(ts, Some(&zone), at(now)), expected, "{ts}");
        assert_eq!(time(ts, None, at(now)), ts, "for a pipe");
    }
}

#[test]
fn a_sender_that_is_only_claimed_is_in_quotes() {
    for (keys, expected) in [
        (json!({"msg": "m"}), "-: m\n"),
        (json!({"msg": "m", "source": "visit"}), "visit: m\n"),
        (json!({"msg": "m", "client": "10.0.0.7"}), "10.0.0.7: m\n"),
        (json!({"msg": "m", "client": "10.0.0.7", "claimed": "visit"}), "10.0.0.7 \"visit\": m\n"),
        (json!({"msg": "m", "source": "visit", "claimed": "a\" b\n"}), "visit \"a\\\" b\\u{a}\": m\n"),
    ] {
        assert_eq!(cut(keys), expected);
    }
}

#[test]
fn fields_follow_the_message() {
    for (fields, expected) in [
        (json!({"user": 7, "ok": true, "none": null}), " none=null ok=true user=7"),
        (json!({"path": "/a?b", "q": "two words", "empty": ""}), " empty=\"\" path=/a?b q=\"two words\""),
        (json!({"q": "say \"hi\"", "eq": "a=b"}), " eq=\"a=b\" q=\"say \\\"hi\\\"\""),
        (json!({"http": {"status": 503, "route": {"name": "r"}}}), " http.route.name=r http.status=503"),
        (json!({"list": [1, "a"], "nothing": {}}), " list=[1,\"a\"] nothing={}"),
        (json!({"a key": "\u{1b}[2J\u{7}"}), " a_key=\"\\u{1b}[2J\\u{7}\""),
        (json!({}), ""),
        (json!("no object"), " =\"no object\""),
    ] {
        assert_eq!(cut(json!({"msg": "m", "fields": fields})), format!("-: m{expected}\n"));
    }
    assert_eq!(cut(json!({"msg": "one\ntwo\n", "fields": {"a": 1}})), "-: one\n    | two\n    | a=1\n");
}

#[test]
fn a_stack_is_indented_below() {
    let stack = "Traceback (most recent call last):\n  File \"x.py\", line 1\r\nValueError: no\n";
    let expected =
        "\n    | Traceback (most recent call last):\n    |   File \"x.py\", line 1\n    | ValueError: no\n"
            .replace("| ", "|   ");
    for (fields, before) in [
        (
            json!({"exception.stacktrace": stack, "exception.type": "ValueError"}),
            " exception.type=ValueError\n    | exception.stacktrace:",
        ),
        (json!({"err": {"stack": stack, "message": "no"}}), " err.message=no\n    | err.stack:"),
    ] {
        assert_eq!(cut(json!({"msg": "failed", "fields": fields})), format!("-: failed{before}{expected}"));
    }
}

#[test]
fn long_texts_are_cut_in_the_middle_with_a_note() {
    let lines: Vec<String> = (1..=1000).map(|n| format!("line {n}")).collect();
    let text = cut(json!({"msg": lines.join("\n")}));
    assert_eq!(text.lines().count(), 36);
    assert!(
        text.contains("    | line 25\n    | … 965 lines left out; --full prints them …\n    | line 991\n"),
        "{text}"
    );
    assert!(text.ends_with("    | line 1000\n"));
    assert_eq!(full(json!({"msg": lines.join("\n")})).lines().count(), 1000);

    let long = "x".repeat(5000);
    assert!(cut(json!({"msg": long})).ends_with("x… (4000 more characters; --full prints them)\n"));
    assert_eq!(full(json!({"msg": long})), format!("-: {long}\n"));
    assert!(
        cut(json!({"msg": "m", "fields": {"a": long}})).contains("x… (4802 more")
            || cut(json!({"msg": "m", "fields": {"a": long}})).contains("x… (4800 more")
    );
    let many: serde_json::Map<String, Value> = (0..100).map(|n| (format!("k{n:03}"), n.into())).collect();
    assert!(
        cut(json!({"msg": "m", "fields": many}))
            .ends_with(" k039=39 … (60 more fields; --full prints them)\n")
    );
    let nested = format!("{}1{}", "[".repeat(300), "]".repeat(300));
    let line = format!(r#"{{"ts":"T","seq":1,"instance":"i","msg":"m","fields":{{"a":{nested}}}}}"#);
    let text = render(&parse(&line).unwrap(), &line, &EntryFormat::default(), Timestamp::UNIX_EPOCH);
    assert!(text.starts_with("T i -: m fields={\"a\":[[[") && text.lines().count() == 1, "{text}");
}

#[test]
fn binary_data_takes_one_line() {
    let data: String = (0..100_000_u32).map(|n| char::from((n * 7919 % 251) as u8)).collect();
    for keys in [
        json!({"msg": data}),
        json!({"msg": "PNG\n\n\n\n\n\u{fffd}\n\n", "msg_base64": "iVBORw=="}),
        json!({"msg": "\0\0\0\0\n\0\0"}),
        json!({"msg": "m", "fields": {"body": "\0\0\0\0\n\0\0"}}),
    ] {
        let text = cut(keys.clone());
        assert!(text.contains("(binary, ") && text.contains("; --full prints them) "), "{text}");
        assert!(text.lines().count() <= 2 && text.chars().count() < 400, "{text}");
        assert!(full(keys).chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
    }
    for text in ["\u{1b}[31mred\u{1b}[0m", "tab\tseparated\tvalues", "", "\u{1b}[1;31m"] {
        assert!(!is_binary(text), "{text:?}");
    }
}

#[test]
fn a_text_can_neither_forge_an_entry_nor_control_the_terminal() {
    assert_eq!(
        cut(json!({"msg": "a\r\nT log-1 -: forged\u{1b}[2J\u{202e}\u{2028}x"})),
        "-: a\n    | T log-1 -: forged\\u{1b}[2J\\u{202e}\\u{2028}x\n"
    );
}

proptest! {
    #[test]
    fn no_control_sequence_reaches_the_terminal(
        msg in any::<String>(), other in any::<String>(), stack in "(\\PC|\\n|\\r|\\x1b|\\x00){0,40}", full in any::<bool>(),
    ) {
        let line = json!({
            "ts": msg, "seq": 1, "instance": other, "source": msg, "level": other, "client": other, "claimed": msg,
            "msg": msg, "fields": {msg.clone(): other, "stack": stack},
        }).to_string();
        let entry = parse(&line).unwrap();
        for zone in [None, Some(TimeZone::UTC)] {
            let format = EntryFormat { full, zone, ..EntryFormat::default() };
            let text = render(&entry, &line, &format, Timestamp::UNIX_EPOCH);
            prop_assert!(text.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
            let lines: Vec<_> = text.trim_end_matches('\n').split('\n').collect();
            prop_assert!(lines.iter().skip(1).all(|line| line.starts_with("    | ")));
            prop_assert!(full || lines.len() <= 2 * 36 + 2);
        }
    }
}
