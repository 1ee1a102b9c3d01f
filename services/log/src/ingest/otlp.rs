//! OTLP log records as entries. Pure.
//!
//! The resource's `service.name` and `service.instance.id` become the name and id that the sender claims, the body the text (as JSON
//! unless it is a string), and the severity the level. Everything else goes to `fields`: the attributes, and,
//! under OpenTelemetry's own names, `time` if it is not credible, `span_id`, `scope`, `event_name`, and
//! `severity_text` or `severity_number` if the level says less.
//!
//! The messages are counted before they are decoded ([`count`]), since decoded they take far more memory.
//!
//! Left out: the resource's other attributes, which would repeat in every entry, and OTLP's JSON encoding.

use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;
use serde_json::{Map, Value};

use super::RequestMeta;
use super::parsed::{IngestError, IngestLimits, MAX_NAME, ParsedBody, RejectedEntries};
use super::time::credible;
use crate::entry::{Batch, EntryMeta, Level, timestamp};

mod count;

/// The memory that an export request takes once it is decoded, in bytes, beside its texts.
pub(crate) fn decoded_size(body: &[u8], limits: IngestLimits) -> Result<usize, IngestError> {
    count::decoded_size(body, limits.max_entries)
}

/// Parses an export request. The length of a record is that of its text and its fields.
pub(crate) fn parse(
    body: &[u8],
    request: &RequestMeta,
    limits: IngestLimits,
) -> Result<ParsedBody, IngestError> {
    decoded_size(body, limits)?;
    let export =
        ExportLogsServiceRequest::decode(body).map_err(|error| IngestError::Otlp(error.to_string()))?;
    let mut parsed =
        ParsedBody { batch: Batch::new(request.key.clone()), rejected: RejectedEntries::default() };
    let mut line = 0;
    for resource_logs in &export.resource_logs {
        let resource = resource_logs.resource.as_ref().map_or(&[][..], |resource| &resource.attributes);
        let mut meta = request.entry_meta();
        meta.claimed = name_of(resource, "service.name")?.or(meta.claimed);
        meta.claimed_id = name_of(resource, "service.instance.id")?;
        for scope_logs in &resource_logs.scope_logs {
            let scope = scope_logs.scope.as_ref().map_or("", |scope| scope.name.as_str());
            for record in &scope_logs.log_records {
                line += 1;
                push(&mut parsed, line, meta, scope, record, request.arrival, limits.max_entry);
                if parsed.batch.encoded_len() > limits.max_encoded {
                    return Err(IngestError::TooMany {
                        limit: limits.max_encoded,
                        what: "bytes when decoded",
                    });
                }
            }
        }
    }
    Ok(parsed)
}

fn push(
    parsed: &mut ParsedBody,
    line: usize,
    meta: EntryMeta<'_>,
    scope: &str,
    record: &LogRecord,
    arrival: Timestamp,
    max_entry: usize,
) {
    let trace_id = (record.trace_id.len() == 16 && record.trace_id.iter().any(|b| *b != 0))
        .then(|| hex(&record.trace_id));
    let mut meta = EntryMeta {
        trace_id: trace_id.as_deref().or(meta.trace_id),
        level: level(record).or(meta.level),
        ..meta
    };
    let msg = match record.body.as_ref().and_then(|body| body.value.as_ref()) {
        Some(Any::StringValue(text)) => text.clone(),
        Some(other) => json(other).to_string(),
        None => record.event_name.clone(),
    };
    let time = time(record);
    meta.time = time.and_then(|time| credible(time, arrival));
    let fields = fields(scope, record, time.filter(|_| meta.time.is_none()));
    if msg.is_empty() && fields.is_empty() {
        let detail = "the record is empty".to_owned();
        return parsed.rejected.push(line, 400, detail);
    }
    let fields = (!fields.is_empty()).then(|| Value::Object(fields).to_string());
    if msg.len() + fields.as_ref().map_or(0, String::len) > max_entry {
        let detail = format!("the record is longer than {max_entry} bytes");
        return parsed.rejected.push(line, 413, detail);
    }
    parsed.batch.push(&meta, msg.as_bytes(), fields.as_deref());
}

/// When it happened, or was observed.
fn time(record: &LogRecord) -> Option<Timestamp> {
    let times = [record.time_unix_nano, record.observed_time_unix_nano];
    let time = times.into_iter().find(|time| *time > 0)?;
    Timestamp::from_nanosecond(time.into()).ok()
}

fn fields(scope: &str, record: &LogRecord, time: Option<Timestamp>) -> Map<String, Value> {
    let mut fields = object(&record.attributes);
    if let Some(time) = time {
        fields.insert("time".to_owned(), timestamp(time).into());
    }
    if record.span_id.len() == 8 && record.span_id.iter().any(|b| *b != 0) {
        fields.insert("span_id".to_owned(), hex(&record.span_id).into());
    }
    if let Some((key, severity)) = severity(record) {
        fields.insert(key.to_owned(), severity);
    }
    for (key, text) in [("scope", scope), ("event_name", &record.event_name)] {
        if !text.is_empty() {
            fields.insert(key.to_owned(), text.into());
        }
    }
    fields
}

/// By its number; the text is the original name, and counts only without one.
fn level(record: &LogRecord) -> Option<Level> {
    u32::try_from(record.severity_number)
        .ok()
        .and_then(Level::from_otlp)
        .or_else(|| record.severity_text.parse().ok())
}

/// The record's own words for its level, if ours don't say as much.
fn severity(record: &LogRecord) -> Option<(&'static str, Value)> {
    let (text, number) = (record.severity_text.as_str(), record.severity_number);
    let known = level(record);
    if !text.is_empty() {
        let same = known.is_some_and(|level| text.eq_ignore_ascii_case(level.as_str()));
        return (!same).then(|| ("severity_text", text.into()));
    }
    // The first of the four numbers of a level is the level itself. FATAL is above all of ours.
    let same = number == 0 || known.is_some() && number < 20 && number % 4 == 1;
    (!same).then(|| ("severity_number", number.into()))
}

/// The name or id that a resource has under `key`.
fn name_of<'a>(resource: &'a [KeyValue], key: &str) -> Result<Option<&'a str>, IngestError> {
    let attribute = resource.iter().find(|attribute| attribute.key == key);
    match attribute.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Any::StringValue(text)) if text.len() > MAX_NAME => {
            Err(IngestError::Otlp(format!("{key} is longer than {MAX_NAME} bytes")))
        }
        Some(Any::StringValue(text)) if !text.is_empty() => Ok(Some(text)),
        _ => Ok(None),
    }
}

fn object(attributes: &[KeyValue]) -> Map<String, Value> {
    attributes
        .iter()
        .map(|attribute| (attribute.key.clone(), attribute.value.as_ref().map_or(Value::Null, value)))
        .collect()
}

fn value(any: &AnyValue) -> Value {
    any.value.as_ref().map_or(Value::Null, json)
}

/// Recursion is bounded: the decoder limits how deep values nest.
fn json(any: &Any) -> Value {
    match any {
        Any::StringValue(text) => text.as_str().into(),
        Any::BoolValue(value) => (*value).into(),
        Any::IntValue(number) => (*number).into(),
        // JSON has no NaN and no infinity; store their names.
        Any::DoubleValue(number) => {
            serde_json::Number::from_f64(*number).map_or_else(|| number.to_string().into(), Value::Number)
        }
        Any::ArrayValue(list) => list.values.iter().map(value).collect::<Vec<_>>().into(),
        Any::KvlistValue(list) => Value::Object(object(&list.values)),
        Any::BytesValue(bytes) => hex(bytes).into(),
        // An index into a string table, which logs don't have.
        Any::StringValueStrindex(_) => Value::Null,
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to memory does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{ArrayValue, InstrumentationScope};
    use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs};
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use serde_json::json;

    use super::*;
    use crate::entry::tests::render_at;

    fn any(value: Any) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    fn attribute(key: &str, value: Any) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(any(value)), ..KeyValue::default() }
    }

    const LIMITS: IngestLimits = IngestLimits { max_entry: 1_000, max_entries: 100, max_encoded: 50_000 };

    fn request(records: Vec<LogRecord>) -> Vec<u8> {
        let attributes = vec![
            attribute("service.name", Any::StringValue("cart".into())),
            attribute("service.instance.id", Any::StringValue("cart-1".into())),
        ];
        let scope = InstrumentationScope { name: "cart::api".into(), ..InstrumentationScope::default() };
        let scope_logs = ScopeLogs { scope: Some(scope), log_records: records, ..ScopeLogs::default() };
        let resource = Resource { attributes, ..Resource::default() };
        let logs = ResourceLogs {
            resource: Some(resource),
            scope_logs: vec![scope_logs],
            ..ResourceLogs::default()
        };
        ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec()
    }

    fn read(records: Vec<LogRecord>) -> (Vec<Value>, RejectedEntries) {
        let body = request(records);
        let parsed = parse(&body, &RequestMeta::default(), LIMITS).unwrap();
        let lines = String::from_utf8(render_at(&parsed.batch, Timestamp::UNIX_EPOCH, 1)).unwrap();
        (lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), parsed.rejected)
    }

    #[test]
    fn everything_in_a_record_is_stored() {
        let record = LogRecord {
            time_unix_nano: 1_500,
            severity_number: 14,
            body: Some(any(Any::StringValue("it is hot".into()))),
            attributes: vec![
                attribute("n", Any::IntValue(7)),
                attribute("list", Any::ArrayValue(ArrayValue { values: vec![any(Any::BoolValue(true))] })),
                attribute("odd", Any::DoubleValue(f64::NAN)),
            ],
            trace_id: vec![0xab; 16],
            span_id: vec![1; 8],
            ..LogRecord::default()
        };
        let (entries, rejected) = read(vec![record]);
        assert_eq!(
            entries,
            [json!({
                "ts": "1970-01-01T00:00:00.000000Z", "seq": 1, "instance": "log-1",
                "claimed": "cart", "claimed_id": "cart-1", "trace_id": "ab".repeat(16), "level": "warn",
                "msg": "it is hot",
                "fields": {
                    "n": 7, "list": [true], "odd": "NaN", "time": "1970-01-01T00:00:00.000001Z",
                    "span_id": "01".repeat(8), "scope": "cart::api", "severity_number": 14,
                },
            })]
        );
        assert_eq!(rejected, RejectedEntries::default());
    }

    #[test]
    fn the_severity_is_the_level_and_its_own_words_stay() {
        let severity = |number, text: &str| {
            let event_name = "x".to_owned();
            let record = LogRecord {
                severity_number: number,
                severity_text: text.to_owned(),
                event_name,
                ..LogRecord::default()
            };
            let entry = read(vec![record]).0.remove(0);
            let fields = ["severity_text", "severity_number"].map(|key| entry["fields"][key].clone());
            (entry["level"].clone(), fields)
        };
        let null = Value::Null;
        assert_eq!(severity(9, ""), (json!("info"), [null.clone(), null.clone()]));
        assert_eq!(severity(13, "Warn"), (json!("warn"), [null.clone(), null.clone()]));
        assert_eq!(severity(13, "WARNING"), (json!("warn"), [json!("WARNING"), null.clone()]));
        assert_eq!(severity(21, ""), (json!("error"), [null.clone(), json!(21)]));
        assert_eq!(severity(0, "CRITICAL"), (json!("error"), [json!("CRITICAL"), null.clone()]));
        assert_eq!(severity(0, "loud"), (null.clone(), [json!("loud"), null.clone()]));
        assert_eq!(severity(0, ""), (null.clone(), [null.clone(), null.clone()]));
        assert_eq!(severity(-3, ""), (null.clone(), [null, json!(-3)]));
    }

    #[test]
    fn a_record_that_is_too_long_is_rejected_alone_and_garbage_as_a_whole() {
        let long = LogRecord { body: Some(any(Any::StringValue("x".repeat(2_000)))), ..LogRecord::default() };
        let named = LogRecord { event_name: "started".into(), ..LogRecord::default() };
        let (entries, rejected) = read(vec![long, named]);
        assert_eq!(entries[0]["msg"], "started");
        assert_eq!((rejected.listed[0].line, rejected.listed[0].status), (1, 413));
        assert!(matches!(parse(b"garbage", &RequestMeta::default(), LIMITS), Err(IngestError::Otlp(_))));
    }

    #[test]
    fn the_request_says_who_the_sender_is() {
        let meta = RequestMeta {
            source: Some("visit".to_owned()),
            claimed: Some("other".to_owned()),
            level: Some(Level::Info),
            ..RequestMeta::default()
        };
        let body = request(vec![LogRecord { event_name: "x".into(), ..LogRecord::default() }]);
        let parsed = parse(&body, &meta, LIMITS).unwrap();
        let line = render_at(&parsed.batch, Timestamp::UNIX_EPOCH, 1);
        let entry: Value = serde_json::from_slice(&line).unwrap();
        let who = ["source", "source_id", "claimed", "claimed_id", "level"].map(|key| entry[key].clone());
        assert_eq!(who, [json!("visit"), Value::Null, json!("cart"), json!("cart-1"), json!("info")]);
    }

    #[test]
    fn what_the_records_share_is_bounded_as_often_as_it_is_repeated() {
        let record = LogRecord { event_name: "x".into(), ..LogRecord::default() };
        let export = |name: &str, scope: &str, records: usize| {
            let attributes = vec![attribute("service.name", Any::StringValue(name.into()))];
            let scope = InstrumentationScope { name: scope.into(), ..InstrumentationScope::default() };
            let log_records = vec![record.clone(); records];
            let logs = ResourceLogs {
                resource: Some(Resource { attributes, ..Resource::default() }),
                scope_logs: vec![ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() }],
                ..ResourceLogs::default()
            };
            let body = ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec();
            parse(&body, &RequestMeta::default(), LIMITS).map(|parsed| parsed.batch.len())
        };
        assert_eq!(export(&"n".repeat(200), "s", 100), Ok(100));
        assert!(matches!(export(&"n".repeat(201), "s", 1), Err(IngestError::Otlp(_))));
        assert_eq!(export("n", &"s".repeat(900), 20), Ok(20));
        let too_long = IngestError::TooMany { limit: 50_000, what: "bytes when decoded" };
        assert_eq!(export("n", &"s".repeat(900), 100), Err(too_long));
    }

    #[test]
    fn too_many_records_or_values_are_refused_before_they_are_decoded() {
        let too_many = |body: &[u8]| match parse(body, &RequestMeta::default(), LIMITS) {
            Err(IngestError::TooMany { limit, what }) => (limit, what),
            other => panic!("{other:?}"),
        };
        let named = LogRecord { event_name: "x".into(), ..LogRecord::default() };
        assert_eq!(read(vec![named.clone(); 100]).0.len(), 100);
        assert_eq!(too_many(&request(vec![named; 101])), (100, "entries"));
        // Two bytes each, but each a value once decoded.
        let values = ArrayValue { values: vec![AnyValue::default(); 6_400] };
        let wide = LogRecord { body: Some(any(Any::ArrayValue(values))), ..LogRecord::default() };
        assert_eq!(too_many(&request(vec![wide])), (6_400, "values"));
        assert!(decoded_size(&[&[0x0a, 0x00][..]; 6_400].concat(), LIMITS).unwrap() > 100 * 6_400);
        let flat = [&[0x0a, 0x00][..]; 6_401].concat();
        assert_eq!(too_many(&flat), (6_400, "values"), "empty resources");
    }
}
