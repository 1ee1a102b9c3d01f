//! Turns JSON values into entries. Pure.
//!
//! - a string: that text
//! - an object with a text under `msg` or `message`: that text, with `level`, `trace_id`, `key` (if the request
//!   has none), and `source` as the name that the sender claims. Everything else goes to `fields`, along with the
//!   object's own `fields`
//! - anything else: its JSON as text
//!
//! Other loggers' keys and words for the level are read ([`level_of`]). Nothing that a sender gives is dropped: what is
//! invalid, and a level that our five don't say as well, stays in `fields`.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::level::level_of;
use super::parsed::{IngestError, IngestLimits, MAX_KEY, MAX_NAME, ParsedBody, RejectedEntries};
use super::time::{credible, time_of};
use super::traceparent::is_trace_id;
use crate::entry::{Batch, EntryMeta, write_string};

/// The JSON of an entry may take this many bytes per byte of text (`\u0001` is one), and this many more for
/// keys and spaces. Longer JSON is not parsed, since a value of many small members takes far more memory than
/// its text.
const JSON_PER_BYTE: usize = 8;
const JSON_EXTRA: usize = 1024;
/// Members of an entry's object, beside its text.
const MAX_MEMBERS: usize = 4096;

/// One JSON value per line.
pub(super) fn parse_lines(
    body: &[u8],
    meta: &EntryMeta<'_>,
    key: Option<String>,
    arrival: Timestamp,
    limits: IngestLimits,
) -> Result<ParsedBody, IngestError> {
    let mut parser = JsonParser::new(meta, key, arrival, limits);
    for (line, json) in (1..).zip(body.split(|b| *b == b'\n').map(<[u8]>::trim_ascii)) {
        if json.is_empty() {
            continue;
        }
        if parser.body.batch.len() + parser.body.rejected.count == limits.max_entries {
            return Err(too_many(limits));
        }
        // JSON is UTF-8; checked once, here.
        match std::str::from_utf8(json) {
            Ok(json) => parser.value(line, json),
            Err(error) => parser.invalid(line, &error),
        }
    }
    Ok(parser.body)
}

/// A list of values, or one value.
pub(super) fn parse_document(
    body: &[u8],
    meta: &EntryMeta<'_>,
    key: Option<String>,
    arrival: Timestamp,
    limits: IngestLimits,
) -> Result<ParsedBody, IngestError> {
    let mut parser = JsonParser::new(meta, key, arrival, limits);
    let invalid = |error: serde_json::Error| IngestError::Json(error.to_string());
    if !body.trim_ascii().starts_with(b"[") {
        let value: &RawValue = serde_json::from_slice(body).map_err(invalid)?;
        parser.value(1, value.get());
        return Ok(parser.body);
    }
    // The whole list is checked first, so that an invalid one stores nothing.
    let mut list = BoundedList { max: limits.max_entries, exceeded: false };
    let mut json = serde_json::Deserializer::from_slice(body);
    let values = list.deserialize(&mut json).and_then(|values| json.end().map(|()| values));
    if list.exceeded {
        return Err(too_many(limits));
    }
    for (position, value) in (1..).zip(values.map_err(invalid)?) {
        parser.value(position, value.get());
    }
    Ok(parser.body)
}

fn too_many(limits: IngestLimits) -> IngestError {
    IngestError::TooMany { limit: limits.max_entries, what: "entries" }
}

/// Collects the entries of one body.
struct JsonParser<'a> {
    meta: &'a EntryMeta<'a>,
    arrival: Timestamp,
    limits: IngestLimits,
    body: ParsedBody,
    fields: Vec<u8>,
}

impl<'a> JsonParser<'a> {
    fn new(meta: &'a EntryMeta<'a>, key: Option<String>, arrival: Timestamp, limits: IngestLimits) -> Self {
        let body = ParsedBody { batch: Batch::new(key), rejected: RejectedEntries::default() };
        Self { meta, arrival, limits, body, fields: Vec::new() }
    }

    fn value(&mut self, line: usize, json: &str) {
        if json.len() > self.limits.max_entry.saturating_mul(JSON_PER_BYTE).saturating_add(JSON_EXTRA) {
            return self.too_long(line);
        }
        match json.as_bytes().first() {
            Some(b'"') => match serde_json::from_str::<JsonText>(json) {
                Ok(text) => self.push(line, text.0.as_bytes()),
                Err(error) => self.invalid(line, &error),
            },
            Some(b'{') => match serde_json::from_str::<JsonObject>(json) {
                Ok(object) => self.object(line, json, &object),
                Err(error) => self.invalid(line, &error),
            },
            _ => match serde_json::from_str::<&RawValue>(json) {
                Ok(value) => self.push(line, value.get().as_bytes()),
                Err(error) => self.invalid(line, &error),
            },
        }
    }

    fn object(&mut self, line: usize, json: &str, object: &JsonObject<'_>) {
        let Some(msg) = &object.msg else {
            return self.push(line, json.as_bytes());
        };
        let mut meta = *self.meta;
        self.fields.clear();
        let mut fields = String::new();
        let mut level = None;
        let mut trace = None;
        let mut claimed = None;
        let mut entry_key = None;
        for (key, raw) in &object.others {
            let text = || serde_json::from_str::<JsonText>(raw.get()).ok().map(|text| text.0.into_owned());
            if level.is_none()
                && let Some((known, exact)) = level_of(&key.0, raw.get())
            {
                level = Some(known);
                if exact {
                    continue;
                }
            }
            if meta.time.is_none()
                && let Some(time) = time_of(&key.0, raw.get()).and_then(|time| credible(time, self.arrival))
            {
                meta.time = Some(time);
                // Stored to the microsecond.
                if time.subsec_nanosecond() % 1_000 == 0 {
                    continue;
                }
            }
            match &*key.0 {
                "trace_id" => {
                    if let Some(id) = text().filter(|id| is_trace_id(id)) {
                        trace = Some(id);
                        continue;
                    }
                }
                "source" => {
                    if let Some(name) = text().filter(|name| !name.is_empty() && name.len() <= MAX_NAME) {
                        claimed = Some(name);
                        continue;
                    }
                }
                "key" if self.body.batch.key().is_none() => {
                    if let Some(name) = text().filter(|name| !name.is_empty() && name.len() <= MAX_KEY) {
                        entry_key = Some(name);
                        continue;
                    }
                }
                "fields" if raw.get().starts_with('{') => {
                    let inner = raw.get()[1..raw.get().len() - 1].trim();
                    if !inner.is_empty() {
                        self.fields.push(if self.fields.is_empty() { b'{' } else { b',' });
                        self.fields.extend_from_slice(inner.as_bytes());
                    }
                    continue;
                }
                _ => {}
            }
            self.fields.push(if self.fields.is_empty() { b'{' } else { b',' });
            write_string(&mut self.fields, &key.0);
            self.fields.push(b':');
            self.fields.extend_from_slice(raw.get().as_bytes());
        }
        if !self.fields.is_empty() {
            self.fields.push(b'}');
            // Made of valid UTF-8 only.
            fields = String::from_utf8(std::mem::take(&mut self.fields)).unwrap_or_default();
        }
        meta.level = level.or(meta.level);
        meta.trace_id = trace.as_deref().or(meta.trace_id);
        meta.claimed = claimed.as_deref().or(meta.claimed);
        meta.key = entry_key.as_deref();
        if self.fits(line, msg.0.len() + fields.len(), msg.0.is_empty()) {
            let fields = Some(fields.as_str()).filter(|fields| !fields.is_empty());
            self.body.batch.push(&meta, msg.0.as_bytes(), fields);
        }
    }

    fn push(&mut self, line: usize, msg: &[u8]) {
        if self.fits(line, msg.len(), msg.is_empty()) {
            self.body.batch.push(self.meta, msg, None);
        }
    }

    fn fits(&mut self, line: usize, len: usize, empty: bool) -> bool {
        if empty {
            self.body.rejected.push(line, 400, "the entry is empty".to_owned());
        } else if len > self.limits.max_entry {
            self.too_long(line);
        }
        !empty && len <= self.limits.max_entry
    }

    fn too_long(&mut self, line: usize) {
        let detail = format!("the entry is longer than {} bytes", self.limits.max_entry);
        self.body.rejected.push(line, 413, detail);
    }

    fn invalid(&mut self, line: usize, error: &dyn fmt::Display) {
        self.body.rejected.push(line, 400, format!("invalid JSON: {error}"));
    }
}

/// Deserializes a list of at most `max` values, without parsing them.
struct BoundedList {
    max: usize,
    /// There was one more.
    exceeded: bool,
}

impl<'de> DeserializeSeed<'de> for &mut BoundedList {
    type Value = Vec<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<Self::Value, D::Error> {
        de.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for &mut BoundedList {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            if values.len() == self.max {
                self.exceeded = true;
                return Err(A::Error::custom("too many"));
            }
            values.push(value);
        }
        Ok(values)
    }
}

#[derive(Deserialize)]
struct JsonText<'a>(#[serde(borrow)] Cow<'a, str>);

/// A JSON object with its text; the other values are not parsed.
struct JsonObject<'a> {
    msg: Option<JsonText<'a>>,
    others: Vec<(JsonText<'a>, &'a RawValue)>,
}

impl<'de: 'a, 'a> Deserialize<'de> for JsonObject<'a> {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = JsonObject<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonObject<'de>, A::Error> {
                let mut object = JsonObject { msg: None, others: Vec::new() };
                while let Some((key, raw)) = map.next_entry::<JsonText<'de>, &'de RawValue>()? {
                    if object.msg.is_none()
                        && matches!(&*key.0, "msg" | "message")
                        && let Ok(text) = serde_json::from_str(raw.get())
                    {
                        object.msg = Some(text);
                    } else if object.others.len() == MAX_MEMBERS {
                        return Err(A::Error::custom(format_args!("more than {MAX_MEMBERS} members")));
                    } else {
                        object.others.push((key, raw));
                    }
                }
                Ok(object)
            }
        }
        de.deserialize_map(ObjectVisitor)
    }
}
