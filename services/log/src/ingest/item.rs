//! What a JSON value becomes as an entry. Pure.
//!
//! - a string: that text
//! - an object with a text under `msg` or `message`: that text, with `level`, `trace_id` and, where the request
//!   names no sender, `source`, and, where the request has no key, `key`; everything else is kept under `fields`,
//!   together with what the object itself has there
//! - anything else: its JSON as text
//!
//! So nothing that a sender gives is dropped: a `level` or `trace_id` that is none stays in `fields`.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Bounds, Failures, IngestError, Parsed, is_trace_id};
use crate::entry::{Batch, Level, Origin, string};

/// Longest key, in bytes.
pub(crate) const MAX_KEY: usize = 128;
/// How much longer than an entry the JSON is that says it, at the most: `\u0001` stands for one byte, and there are
/// names and spaces. What is longer is not looked at, since a value of many small members takes far more in memory.
const JSON_PER_BYTE: usize = 8;
const JSON_BESIDE: usize = 1024;

/// Collects the entries of one body.
pub(super) struct Reader<'a> {
    origin: &'a Origin<'a>,
    bounds: Bounds,
    batch: Batch,
    refused: Failures,
    fields: Vec<u8>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(origin: &'a Origin<'a>, key: Option<String>, bounds: Bounds) -> Self {
        Self { origin, bounds, batch: Batch::new(key), refused: Failures::default(), fields: Vec::new() }
    }

    pub(super) fn finish(self) -> Parsed {
        Parsed { batch: self.batch, refused: self.refused }
    }

    /// One line of a batch.
    pub(super) fn line(&mut self, line: usize, json: &[u8]) -> Result<(), IngestError> {
        if self.batch.len() + self.refused.count == self.bounds.max_entries {
            return Err(self.too_many());
        }
        // JSON is UTF-8; checked once, here.
        match std::str::from_utf8(json) {
            Ok(json) => self.value(line, json),
            Err(error) => self.refuse(line, 400, format!("no JSON: {error}")),
        }
        Ok(())
    }

    /// A whole body: a list of values, or one value.
    pub(super) fn document(&mut self, body: &[u8]) -> Result<(), IngestError> {
        let broken = |error: serde_json::Error| IngestError::Json(error.to_string());
        if !body.trim_ascii().starts_with(b"[") {
            let value: &RawValue = serde_json::from_slice(body).map_err(broken)?;
            self.value(1, value.get());
            return Ok(());
        }
        // Checked as a whole first, so that a broken list stores nothing.
        let mut list = List { max: self.bounds.max_entries, more: false };
        let mut json = serde_json::Deserializer::from_slice(body);
        let values = list.deserialize(&mut json).and_then(|values| json.end().map(|()| values));
        if list.more {
            return Err(self.too_many());
        }
        for (place, value) in (1..).zip(values.map_err(broken)?) {
            self.value(place, value.get());
        }
        Ok(())
    }

    fn too_many(&self) -> IngestError {
        IngestError::TooMany { limit: self.bounds.max_entries, what: "entries" }
    }

    fn value(&mut self, line: usize, json: &str) {
        if json.len() > self.bounds.max_entry.saturating_mul(JSON_PER_BYTE).saturating_add(JSON_BESIDE) {
            return self.too_long(line);
        }
        match json.as_bytes().first() {
            Some(b'"') => match serde_json::from_str::<Text>(json) {
                Ok(text) => self.push(line, *self.origin, text.0.as_bytes()),
                Err(error) => self.refuse(line, 400, format!("no JSON: {error}")),
            },
            Some(b'{') => match serde_json::from_str::<Object>(json) {
                Ok(object) => self.object(line, json, &object),
                Err(error) => self.refuse(line, 400, format!("no JSON: {error}")),
            },
            _ => match serde_json::from_str::<&RawValue>(json) {
                Ok(value) => self.push(line, *self.origin, value.get().as_bytes()),
                Err(error) => self.refuse(line, 400, format!("no JSON: {error}")),
            },
        }
    }

    fn object(&mut self, line: usize, json: &str, object: &Object<'_>) {
        let Some(msg) = &object.msg else {
            return self.push(line, *self.origin, json.as_bytes());
        };
        let mut origin = *self.origin;
        self.fields.clear();
        let mut text = String::new();
        let mut trace = None;
        let mut source = None;
        let mut entry_key = None;
        for (key, raw) in &object.others {
            let value = || serde_json::from_str::<Text>(raw.get()).ok().map(|text| text.0.into_owned());
            match &*key.0 {
                "level" => {
                    if let Some(level) = value().and_then(|text| text.parse::<Level>().ok()) {
                        origin.level = Some(level);
                        continue;
                    }
                }
                "trace_id" => {
                    if let Some(id) = value().filter(|id| is_trace_id(id)) {
                        trace = Some(id);
                        continue;
                    }
                }
                "source" if self.origin.source.is_none() => {
                    if let Some(name) = value() {
                        source = Some(name);
                        continue;
                    }
                }
                "key" if self.batch.key().is_none() => {
                    if let Some(name) = value().filter(|name| !name.is_empty() && name.len() <= MAX_KEY) {
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
            string(&mut self.fields, &key.0);
            self.fields.push(b':');
            self.fields.extend_from_slice(raw.get().as_bytes());
        }
        if !self.fields.is_empty() {
            self.fields.push(b'}');
            // Made of valid UTF-8 only.
            text = String::from_utf8(std::mem::take(&mut self.fields)).unwrap_or_default();
        }
        origin.trace_id = trace.as_deref().or(origin.trace_id);
        origin.source = source.as_deref().or(origin.source);
        origin.key = entry_key.as_deref();
        if self.fits(line, msg.0.len() + text.len(), msg.0.is_empty()) {
            self.batch.push(&origin, msg.0.as_bytes(), Some(text.as_str()).filter(|text| !text.is_empty()));
        }
    }

    fn push(&mut self, line: usize, origin: Origin<'_>, msg: &[u8]) {
        if self.fits(line, msg.len(), msg.is_empty()) {
            self.batch.push(&origin, msg, None);
        }
    }

    fn fits(&mut self, line: usize, len: usize, empty: bool) -> bool {
        if empty {
            self.refuse(line, 400, "the entry is empty".to_owned());
        } else if len > self.bounds.max_entry {
            self.too_long(line);
        }
        !empty && len <= self.bounds.max_entry
    }

    fn too_long(&mut self, line: usize) {
        self.refuse(line, 413, format!("the entry is longer than {} bytes", self.bounds.max_entry));
    }

    fn refuse(&mut self, line: usize, status: u16, detail: String) {
        self.refused.push(line, status, detail);
    }
}

/// The values of a list, unread; ends at the first one too many.
struct List {
    max: usize,
    /// There was one too many.
    more: bool,
}

impl<'de> DeserializeSeed<'de> for &mut List {
    type Value = Vec<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<Self::Value, D::Error> {
        de.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for &mut List {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            if values.len() == self.max {
                self.more = true;
                return Err(A::Error::custom("too many"));
            }
            values.push(value);
        }
        Ok(values)
    }
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A JSON object with its text, and everything else unread.
struct Object<'a> {
    msg: Option<Text<'a>>,
    others: Vec<(Text<'a>, &'a RawValue)>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut object = Object { msg: None, others: Vec::new() };
                while let Some((key, raw)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    if object.msg.is_none()
                        && matches!(&*key.0, "msg" | "message")
                        && let Ok(text) = serde_json::from_str(raw.get())
                    {
                        object.msg = Some(text);
                    } else {
                        object.others.push((key, raw));
                    }
                }
                Ok(object)
            }
        }
        de.deserialize_map(Entries)
    }
}
