//! One entry: the log service's JSON line, and its form for people. Pure.
//!
//! An entry's text is untrusted: none of it may reach the terminal as a control sequence, and none of its
//! lines may look like another entry.

use std::fmt::Write as _;

use serde::Deserialize;

/// The colors of instances (ANSI 31 to 36 and 91 to 96).
const COLORS: [u8; 12] = [36, 33, 35, 32, 34, 31, 96, 93, 95, 92, 94, 91];
/// Precedes the second and later lines of a text.
const CONTINUED: &str = "\n    | ";

/// The keys of an entry that matter here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct EntryLine {
    pub(super) ts: String,
    pub(super) seq: u64,
    pub(super) instance: String,
    #[serde(default)]
    pub(super) source: Option<String>,
    #[serde(default)]
    pub(super) level: Option<String>,
    #[serde(default)]
    pub(super) key: Option<String>,
    #[serde(default)]
    pub(super) part: u64,
    pub(super) msg: String,
}

/// How entries are printed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EntryFormat {
    /// As they are stored.
    pub(super) json: bool,
    /// With the time of day instead of the whole timestamp.
    pub(super) short_time: bool,
    /// With a color per instance.
    pub(super) color: bool,
}

/// Reads a stored line; `None` if it is not an entry.
pub(super) fn parse(line: &str) -> Option<EntryLine> {
    serde_json::from_str(line).ok()
}

/// The entry as text with a newline. `line` is what it was parsed from.
pub(super) fn render(entry: &EntryLine, line: &str, format: EntryFormat) -> String {
    if format.json {
        return format!("{line}\n");
    }
    let time = if format.short_time { time_of_day(&entry.ts) } else { &entry.ts };
    let mut text = clean(time);
    let instance = clean(&entry.instance);
    let _ = if format.color {
        write!(text, " \x1b[{}m{instance}\x1b[0m", color_of(&entry.instance))
    } else {
        write!(text, " {instance}")
    };
    let _ = write!(text, " {}", clean(entry.source.as_deref().unwrap_or("-")));
    if let Some(level) = &entry.level {
        let _ = write!(text, " {}", clean(level));
    }
    let mut lines = entry.msg.split('\n').map(|line| clean(line.strip_suffix('\r').unwrap_or(line)));
    let _ = write!(text, ": {}", lines.next().unwrap_or_default());
    for line in lines {
        text += CONTINUED;
        text += &line;
    }
    text + "\n"
}

/// `08:07:11.123` of `2026-11-23T08:07:11.123456Z`.
fn time_of_day(ts: &str) -> &str {
    ts.get(11..23).unwrap_or(ts)
}

/// Escapes control characters, and those that change the direction of text.
fn clean(text: &str) -> String {
    let escape = |c: char| {
        c.is_control() && c != '\t' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINE: &str = r#"{"ts":"2026-11-23T08:07:11.123456Z","seq":7,"instance":"log-1","source":"visit","source_id":"visit-9","trace_id":"4b","level":"warn","key":"k","part":2,"of":3,"msg":"visit 12","fields":{"a":1}}"#;

    #[test]
    fn an_entry_for_people() {
        let entry = parse(LINE).unwrap();
        assert_eq!((entry.seq, entry.part, entry.key.as_deref()), (7, 2, Some("k")));
        let plain = EntryFormat::default();
        assert_eq!(render(&entry, LINE, plain), "2026-11-23T08:07:11.123456Z log-1 visit warn: visit 12\n");
        let terminal = EntryFormat { short_time: true, color: true, json: false };
        let text = render(&entry, LINE, terminal);
        assert!(
            text.starts_with("08:07:11.123 \x1b[") && text.ends_with("mlog-1\x1b[0m visit warn: visit 12\n"),
            "{text:?}"
        );
        assert_eq!(render(&entry, LINE, EntryFormat { json: true, ..plain }), format!("{LINE}\n"));
        assert_eq!(parse("invalid"), None);
    }

    #[test]
    fn a_text_can_neither_forge_an_entry_nor_control_the_terminal() {
        let line = r#"{"ts":"T","seq":1,"instance":"log-1","msg":"a\r\nT log-1 -: forged\u001b[2J\u202e"}"#;
        let entry = parse(line).unwrap();
        assert_eq!(
            render(&entry, line, EntryFormat::default()),
            "T log-1 -: a\n    | T log-1 -: forged\\u{1b}[2J\\u{202e}\n"
        );
    }

    proptest! {
        #[test]
        fn no_control_sequence_reaches_the_terminal(msg in any::<String>(), instance in any::<String>()) {
            let entry = EntryLine { ts: msg.clone(), seq: 1, instance, source: Some(msg.clone()), level: None, key: None, part: 0, msg };
            let text = render(&entry, "", EntryFormat::default());
            prop_assert!(text.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
            prop_assert!(text.trim_end_matches('\n').split('\n').skip(1).all(|line| line.starts_with("    | ")));
        }
    }
}
