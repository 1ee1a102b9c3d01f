//! The level, time and trace id that a line has.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use super::{access, fields, level, time, trace_id};

/// Keys of a JSON object, in order of preference.
const TEXTS: [&str; 5] = ["msg", "message", "event", "log", "MESSAGE"];
const LEVELS: [&str; 9] =
    ["level", "severity", "lvl", "loglevel", "levelname", "log.level", "@level", "@l", "PRIORITY"];
const TIMES: [&str; 8] =
    ["ts", "time", "timestamp", "@timestamp", "@t", "asctime", "datetime", "__REALTIME_TIMESTAMP"];
/// Fields of journald that say who wrote an entry; the many others are left out.
const JOURNAL: [(&str, &str); 5] = [
    ("SYSLOG_IDENTIFIER", "identifier"),
    ("_SYSTEMD_UNIT", "unit"),
    ("_PID", "pid"),
    ("_HOSTNAME", "host"),
    ("_TRANSPORT", "transport"),
];

/// A text with what was recognized in it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Record {
    pub(crate) text: String,
    pub(crate) level: Option<&'static str>,
    pub(crate) time: Option<Timestamp>,
    pub(crate) trace_id: Option<String>,
    pub(crate) fields: Map<String, Value>,
}

/// Recognizes JSON, logfmt, and what Python, Go, Java, Rust, nginx and others write. Times without an offset are in
/// `zone`. Of several lines, the first one counts.
pub(crate) fn recognize(text: String, zone: &TimeZone) -> Record {
    if text.starts_with('{')
        && let Ok(object) = serde_json::from_str::<Map<String, Value>>(text.trim_end())
    {
        return json(text, object, zone);
    }
    let first = text.lines().next().unwrap_or_default();
    if let Some(pairs) = fields::logfmt(first) {
        let find =
            |keys: &[&str]| pairs.iter().find(|(key, _)| keys.contains(key)).map(|(_, value)| value.as_str());
        return Record {
            level: find(&LEVELS).and_then(level::level),
            time: find(&TIMES).and_then(|text| time::of_text(text, zone)),
            trace_id: pairs
                .iter()
                .filter(|(key, _)| trace_id::is_key(key))
                .find_map(|(_, value)| trace_id::trace_id(value)),
            text,
            ..Record::default()
        };
    }
    let (level, time) = if let Some((level, stamp)) = access::recognize(first) {
        (Some(level), stamp.and_then(|stamp| time::leading(stamp, zone)).and_then(|(time, _)| time))
    } else if let Some((time, rest)) = time::leading(first, zone) {
        (level::leading(rest, true), time)
    } else {
        (level::glog(first).or_else(|| level::leading(first, false)), None)
    };
    let level = level.or_else(|| is_crash(first).then_some("error"));
    Record { level, time, trace_id: trace_id::find(first), text, fields: Map::new() }
}

/// The first line of what a runtime prints when a program fails.
fn is_crash(line: &str) -> bool {
    [
        "Traceback (most recent call last):",
        "panic: ",
        "fatal error: ",
        "Exception in thread ",
        "Unhandled exception",
    ]
    .iter()
    .any(|start| line.starts_with(start))
        || line.starts_with("thread '") && line.contains(" panicked at ")
}

fn json(text: String, mut object: Map<String, Value>, zone: &TimeZone) -> Record {
    let level = LEVELS.iter().find_map(|key| match (object.get(*key)?, *key) {
        (Value::String(word), "PRIORITY") => level::of_priority(word.parse().ok()?),
        (Value::String(word), _) => level::level(word).or_else(|| level::of_number(word.parse().ok()?)),
        (Value::Number(number), "PRIORITY" | "severity") => level::of_priority(number.as_i64()?),
        (Value::Number(number), _) => level::of_number(number.as_i64()?),
        _ => None,
    });
    let time = TIMES.iter().find_map(|key| match object.get(*key)? {
        Value::String(text) => time::of_text(text, zone),
        Value::Number(number) => time::of_number(number.as_f64()?),
        _ => None,
    });
    let trace = object.iter().filter(|(key, _)| trace_id::is_key(key));
    let trace_id = trace.filter_map(|(_, value)| value.as_str()).find_map(trace_id::trace_id);
    let key =
        TEXTS.iter().find(|key| object.get(**key).and_then(message).is_some_and(|text| !text.is_empty()));
    let Some(message) = key.and_then(|key| message(&object.remove(*key)?)) else {
        return Record { text, level, time, trace_id, fields: Map::new() };
    };
    let mut fields = Map::new();
    if object.contains_key("__CURSOR") || object.contains_key("__REALTIME_TIMESTAMP") {
        for (from, to) in JOURNAL {
            if let Some(value) = object.remove(from) {
                fields.insert(to.to_owned(), value);
            }
        }
    } else {
        fields = object;
        for key in LEVELS.iter().filter(|_| level.is_some()).chain(TIMES.iter().filter(|_| time.is_some())) {
            fields.remove(*key);
        }
        if trace_id.is_some() {
            fields.retain(|key, _| !trace_id::is_key(key));
        }
    }
    let text = message.trim_end_matches('\n').to_owned();
    Record { text, level, time, trace_id, fields }
}

/// The text of a message. journald writes one that is not UTF-8 as a list of bytes.
fn message(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(bytes) => {
            let bytes: Option<Vec<u8>> = bytes.iter().map(|byte| u8::try_from(byte.as_u64()?).ok()).collect();
            Some(String::from_utf8_lossy(&bytes?).into_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    /// Level, time, trace id and, if it is not the line itself, the text.
    type Expected = (Option<&'static str>, Option<&'static str>, bool, Option<&'static str>);

    #[test]
    fn lines_of_many_loggers() {
        let noon = Some("2026-11-26T12:00:00Z");
        let cases: &[(&str, Expected)] = &[
            // Python: logging's default, a common format, gunicorn, uvicorn, Django, Flask, loguru.
            ("WARNING:root:careful", (Some("warn"), None, false, None)),
            ("2026-11-26 12:00:00,000 - app - ERROR - it broke", (Some("error"), noon, false, None)),
            ("[2026-11-26 12:00:00 +0000] [7] [INFO] Booting worker", (Some("info"), noon, false, None)),
            ("INFO:     Application startup complete.", (Some("info"), None, false, None)),
            ("[26/Nov/2026 12:00:00] \"GET / HTTP/1.1\" 500 17", (Some("error"), noon, false, None)),
            (
                "127.0.0.1 - - [26/Nov/2026 12:00:00] \"GET / HTTP/1.1\" 200 -",
                (Some("info"), noon, false, None),
            ),
            ("2026-11-26 12:00:00.000 | DEBUG    | app:f:1 - x", (Some("debug"), noon, false, None)),
            (
                "Traceback (most recent call last):\n  File …\nValueError: x",
                (Some("error"), None, false, None),
            ),
            // Go: log, slog, zap, glog, a panic.
            ("2026/11/26 12:00:00 listening", (None, noon, false, None)),
            ("time=2026-11-26T12:00:00Z level=WARN msg=\"be careful\"", (Some("warn"), noon, false, None)),
            (
                "ts=2026-11-26T12:00:00Z level=info trace_id=4bf92f3577b34da6a3ce929d0e0e4736 msg=x",
                (Some("info"), noon, true, None),
            ),
            ("2026-11-26T12:00:00.000Z\tINFO\tapp/main.go:7\tx", (Some("info"), noon, false, None)),
            ("E1126 12:00:00.000000    1 main.go:7] it broke", (Some("error"), None, false, None)),
            ("panic: runtime error: index out of range", (Some("error"), None, false, None)),
            // Java: Spring Boot, logback, java.util.logging, an exception.
            (
                "2026-11-26T12:00:00.000Z  INFO 1 --- [main] c.example.App : Started",
                (Some("info"), noon, false, None),
            ),
            ("12:00:00.000 [main] WARN  c.example.App - careful", (Some("warn"), None, false, None)),
            ("SEVERE: it broke", (Some("error"), None, false, None)),
            ("Exception in thread \"main\" java.lang.Error\n\tat X", (Some("error"), None, false, None)),
            // Rust: tracing, env_logger, a panic.
            ("2026-11-26T12:00:00.000000Z  WARN app: careful", (Some("warn"), noon, false, None)),
            ("[2026-11-26T12:00:00Z ERROR app] it broke", (Some("error"), noon, false, None)),
            ("thread 'main' panicked at src/main.rs:1:", (Some("error"), None, false, None)),
            // nginx: error log and access log.
            ("2026/11/26 12:00:00 [error] 7#7: *1 open() failed", (Some("error"), noon, false, None)),
            (
                "10.0.0.1 - - [26/Nov/2026:12:00:00 +0000] \"GET / HTTP/2.0\" 502 0 \"-\" \"curl\"",
                (Some("error"), noon, false, None),
            ),
            // JSON: pino, slog, zap, structlog, logstash, Docker.
            (
                r#"{"level":50,"time":1795694400000,"msg":"it broke"}"#,
                (Some("error"), noon, false, Some("it broke")),
            ),
            (
                r#"{"time":"2026-11-26T12:00:00Z","level":"INFO","msg":"x","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"}"#,
                (Some("info"), noon, true, Some("x")),
            ),
            (r#"{"level":"warn","ts":1795694400.0,"msg":"x"}"#, (Some("warn"), noon, false, Some("x"))),
            (r#"{"event":"x","level":"debug"}"#, (Some("debug"), None, false, Some("x"))),
            (
                r#"{"@timestamp":"2026-11-26T12:00:00Z","log.level":"ERROR","message":"x"}"#,
                (Some("error"), noon, false, Some("x")),
            ),
            (
                r#"{"log":"x\n","stream":"stderr","time":"2026-11-26T12:00:00Z"}"#,
                (None, noon, false, Some("x")),
            ),
            (r#"{"level":"info","n":1}"#, (Some("info"), None, false, None)),
            (r#"{"not json"#, (None, None, false, None)),
            // Others.
            ("error: it broke", (Some("error"), None, false, None)),
            ("Listening on http://127.0.0.1:3000", (None, None, false, None)),
            ("handled trace_id=4bf92f3577b34da6a3ce929d0e0e4736", (None, None, true, None)),
        ];
        for (line, (level, time, traced, text)) in cases {
            let record = recognize((*line).to_owned(), &TimeZone::UTC);
            assert_eq!(record.level, *level, "{line}");
            assert_eq!(record.time.map(|time| time.to_string()).as_deref(), *time, "{line}");
            assert_eq!(record.trace_id.as_deref(), traced.then_some(TRACE), "{line}");
            assert_eq!(record.text, text.unwrap_or(line), "{line}");
        }
    }

    #[test]
    fn fields_of_json_are_kept() {
        let line = r#"{"level":"info","msg":"x","user":"ada","n":1,"time":"later"}"#;
        let record = recognize(line.to_owned(), &TimeZone::UTC);
        assert_eq!(Value::from(record.fields), serde_json::json!({ "user": "ada", "n": 1, "time": "later" }));
    }

    #[test]
    fn entries_of_journald() {
        let line = r#"{"__CURSOR":"s=1","__REALTIME_TIMESTAMP":"1795694400000000","PRIORITY":"4","MESSAGE":[104,105],
            "_SYSTEMD_UNIT":"ssh.service","_BOOT_ID":"b","SYSLOG_IDENTIFIER":"sshd"}"#;
        let record = recognize(line.to_owned(), &TimeZone::UTC);
        assert_eq!((record.text.as_str(), record.level), ("hi", Some("warn")));
        assert_eq!(record.time.unwrap().to_string(), "2026-11-26T12:00:00Z");
        let fields = serde_json::json!({ "identifier": "sshd", "unit": "ssh.service" });
        assert_eq!(Value::from(record.fields), fields);
    }
}
