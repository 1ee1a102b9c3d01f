//! An entry as people read it: time, instance, sender, message, fields; what has several lines is indented below.
//! Pure.
//!
//! All of an entry is untrusted text: none of it may reach the terminal as a control sequence, none of its lines
//! may look like another entry, and none of it may fill the terminal unless it is asked for.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use super::entry::EntryLine;

/// The colors of instances (ANSI 31 to 36 and 91 to 96).
const COLORS: [u8; 12] = [36, 33, 35, 32, 34, 31, 96, 93, 95, 92, 94, 91];
/// Precedes the second and later lines of an entry.
const CONTINUED: &str = "\n    | ";
/// Longest line, in characters.
const MAX_LINE: usize = 1000;
/// Longest value of a field, in characters.
const MAX_VALUE: usize = 200;
/// Most fields.
const MAX_FIELDS: usize = 40;
/// Most lines of a text: its first and its last, since a stack trace has its cause at one of the ends.
const MAX_LINES: (usize, usize) = (25, 10);
/// Characters of binary data.
const MAX_BINARY: usize = 200;
/// Characters at the beginning of a text that tell whether it is binary data.
const BINARY_SAMPLE: usize = 1000;
/// Longest name of an instance or a sender, in characters.
const MAX_NAME: usize = 100;

/// How entries are printed.
#[derive(Debug, Clone, Default)]
pub(super) struct EntryFormat {
    /// As they are stored.
    pub(super) json: bool,
    /// All of each, however long.
    pub(super) full: bool,
    /// With the time of day in this zone, and the date unless it is today; without a zone as they are stored.
    pub(super) zone: Option<TimeZone>,
    /// With a color per instance.
    pub(super) color: bool,
}

/// The keys of an entry that only people read.
#[derive(Debug, Default, Deserialize)]
struct Details<'a> {
    #[serde(default)]
    client: Option<String>,
    #[serde(default)]
    claimed: Option<String>,
    #[serde(default)]
    msg_base64: Option<IgnoredAny>,
    #[serde(borrow, default)]
    fields: Option<&'a RawValue>,
}

/// The entry as text with a newline. `line` is what it was parsed from.
pub(super) fn render(entry: &EntryLine, line: &str, format: &EntryFormat, now: Timestamp) -> String {
    if format.json {
        return format!("{line}\n");
    }
    let details: Details<'_> = serde_json::from_str(line).unwrap_or_default();
    let mut text = Text { out: clean(&time(&entry.ts, format.zone.as_ref(), now)), full: format.full };
    let instance = clean(&short(&entry.instance));
    let _ = if format.color {
        write!(text.out, " \x1b[{}m{instance}\x1b[0m", color_of(&entry.instance))
    } else {
        write!(text.out, " {instance}")
    };
    let _ = write!(text.out, " {}", sender(entry.source.as_deref(), &details));
    if let Some(level) = &entry.level {
        let _ = write!(text.out, " {}", clean(&short(level)));
    }
    text.out += ": ";
    let mut fields = Fields::default();
    if let Some(raw) = details.fields {
        match serde_json::from_str(raw.get()) {
            Ok(value) => fields.add("", &value),
            Err(_) => fields.short.push(("fields".to_owned(), raw.get().to_owned())), // nested too deeply
        }
    }
    let is_multiline = entry.msg.trim_end().contains('\n');
    if details.msg_base64.is_some() || is_binary(&entry.msg) {
        text.binary(&entry.msg);
    } else {
        text.lines(entry.msg.trim_end_matches(['\r', '\n']), false);
    }
    text.fields(&fields.short, is_multiline);
    for (key, value) in &fields.long {
        text.out += CONTINUED;
        let _ = write!(text.out, "{}:", clean(&short(key)));
        if is_binary(value) {
            text.out.push(' ');
            text.binary(value);
        } else {
            text.lines(value.trim_end_matches(['\r', '\n']), true);
        }
    }
    text.out + "\n"
}

/// A time on a terminal.
fn time(ts: &str, zone: Option<&TimeZone>, now: Timestamp) -> String {
    let local = |at: Timestamp| zone.map(|zone| at.to_zoned(zone.clone()));
    match ts.parse().ok().and_then(local).zip(local(now)) {
        Some((at, now)) if at.date() == now.date() => at.strftime("%H:%M:%S%.3f").to_string(),
        Some((at, _)) => at.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string(),
        None => ts.to_owned(),
    }
}

/// The service that the platform knows to be the sender, or else its address, and in quotes who it says it is.
fn sender(source: Option<&str>, details: &Details<'_>) -> String {
    let known = source.or(details.client.as_deref()).unwrap_or("-");
    match &details.claimed {
        Some(claimed) => {
            format!("{} \"{}\"", clean(&short(known)), clean(&short(claimed)).replace('"', "\\\""))
        }
        None => clean(&short(known)),
    }
}

/// The fields of an entry, objects in them flattened: `error.type`.
#[derive(Debug, Default)]
struct Fields {
    /// On one line.
    short: Vec<(String, String)>,
    /// Texts of several lines, as stack traces are.
    long: Vec<(String, String)>,
}

impl Fields {
    fn add(&mut self, key: &str, value: &Value) {
        match value {
            Value::Object(members) if !members.is_empty() || key.is_empty() => {
                for (name, member) in members {
                    let path = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                    self.add(&path, member);
                }
            }
            Value::String(text) if text.trim_end().contains('\n') => {
                self.long.push((key.to_owned(), text.clone()))
            }
            Value::String(text) => self.short.push((key.to_owned(), quoted(text))),
            other => self.short.push((key.to_owned(), other.to_string())),
        }
    }
}

/// A text as a value: bare if it is one word, else in quotes.
fn quoted(text: &str) -> String {
    let is_word = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '=' | '\\');
    if !text.is_empty() && text.chars().all(is_word) {
        return text.to_owned();
    }
    format!("\"{}\"", text.trim_end_matches(['\r', '\n']).replace('\\', r"\\").replace('"', "\\\""))
}

/// An entry in the making.
struct Text {
    out: String,
    full: bool,
}

impl Text {
    /// Adds a text; its second and later lines are indented. `below`: its first line is, too.
    fn lines(&mut self, text: &str, below: bool) {
        let lines: Vec<&str> = text.split('\n').collect();
        let (first, last) = MAX_LINES;
        let left_out = if self.full { 0 } else { lines.len().saturating_sub(first + last) };
        for (at, line) in lines.iter().enumerate() {
            if left_out > 0 && at == first {
                let _ = write!(self.out, "{CONTINUED}… {left_out} lines left out; --full prints them …");
            }
            if left_out > 0 && (first..first + left_out).contains(&at) {
                continue;
            }
            if below || at > 0 {
                self.out += CONTINUED;
            }
            if below {
                self.out += "  ";
            }
            self.cut(line.strip_suffix('\r').unwrap_or(line), MAX_LINE);
        }
    }

    /// Adds a line, and how much of it is left out.
    fn cut(&mut self, line: &str, max: usize) {
        let cleaned = clean(line);
        let length = cleaned.chars().count();
        if self.full || length <= max {
            self.out += &cleaned;
        } else {
            self.out.extend(cleaned.chars().take(max));
            let _ = write!(self.out, "… ({} more characters; --full prints them)", length - max);
        }
    }

    /// Adds binary data, on one line unless all of it is wanted.
    fn binary(&mut self, data: &str) {
        if self.full {
            return self.lines(data, false);
        }
        let _ = write!(self.out, "(binary, {} bytes; --full prints them) ", data.len());
        let start: String = data.chars().take(MAX_BINARY).flat_map(char::escape_default).collect();
        self.out.extend(start.chars().take(MAX_BINARY));
    }

    fn fields(&mut self, fields: &[(String, String)], below: bool) {
        let most = if self.full { fields.len() } else { MAX_FIELDS };
        for (at, (key, value)) in fields.iter().take(most).enumerate() {
            self.out += if below && at == 0 { CONTINUED } else { " " };
            let _ = write!(self.out, "{}=", clean(&short(key)).replace(' ', "_"));
            self.cut(value, MAX_VALUE);
        }
        if fields.len() > most {
            let _ = write!(self.out, " … ({} more fields; --full prints them)", fields.len() - most);
        }
    }
}

/// Whether one in twenty characters is one that no text has.
fn is_binary(text: &str) -> bool {
    let mut strange = 0;
    let mut all = 0;
    for c in text.chars().take(BINARY_SAMPLE) {
        all += 1;
        // An escape character begins a color.
        strange +=
            usize::from(c == '\u{fffd}' || c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{1b}'));
    }
    strange * 20 > all
}

/// A name of bounded length.
fn short(name: &str) -> String {
    match name.char_indices().nth(MAX_NAME) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// Escapes control characters, and those that change the direction of text.
fn clean(text: &str) -> String {
    let escape = |c: char| {
        c.is_control() && c != '\t'
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if escape(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

/// The same color for the same instance everywhere (FNV-1a).
fn color_of(instance: &str) -> u8 {
    let hash = instance.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    COLORS[(hash % COLORS.len() as u64) as usize]
}

#[cfg(test)]
mod tests;
