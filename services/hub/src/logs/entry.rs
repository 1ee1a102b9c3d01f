//! One entry: the log service's JSON line, and how people see it. Pure.
//!
//! An entry's text is anybody's, so nothing of it may reach the terminal as a control sequence, and none of its
//! lines may pass for an entry of its own.

use std::fmt::Write as _;

use serde::Deserialize;

/// Colours that instances are told apart by (ANSI 31 to 36, and their bright ones).
const COLOURS: [u8; 12] = [36, 33, 35, 32, 34, 31, 96, 93, 95, 92, 94, 91];
/// What the second and later lines of a text begin with.
const CONTINUED: &str = "\n    | ";

/// What is read of an entry. Unknown keys are for others.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Entry {
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

/// How entries are shown.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Look {
    /// As they are stored.
    pub(super) json: bool,
    /// The time of day is enough.
    pub(super) terminal: bool,
    /// Instances have colours.
    pub(super) colour: bool,
}

/// Reads a stored line; nothing where it is none.
pub(super) fn read(line: &str) -> Option<Entry> {
    serde_json::from_str(line).ok()
}

/// The entry as text with its newline. `line` is what it was read from.
pub(super) fn show(entry: &Entry, line: &str, look: Look) -> String {
    if look.json {
        return format!("{line}\n");
    }
    let time = if look.terminal { time_of_day(&entry.ts) } else { &entry.ts };
    let mut text = clean(time);
    let instance = clean(&entry.instance);
    let _ = if look.colour {
        write!(text, " \x1b[{}m{instance}\x1b[0m", colour_of(&entry.instance))
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

/// Text without control characters, and without what turns the direction of text around.
fn clean(text: &str) -> String {
    let odd = |c: char| {
        c.is_control() && c != '\t' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if odd(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

/// The same for one instance on every screen (FNV-1a).
fn colour_of(instance: &str) -> u8 {
    let hash = instance.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    COLOURS[(hash % COLOURS.len() as u64) as usize]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINE: &str = r#"{"ts":"2026-11-23T08:07:11.123456Z","seq":7,"instance":"log-1","source":"visit","source_id":"visit-9","trace_id":"4b","level":"warn","key":"k","part":2,"of":3,"msg":"visit 12","fields":{"a":1}}"#;

    #[test]
    fn an_entry_as_people_see_it() {
        let entry = read(LINE).unwrap();
        assert_eq!((entry.seq, entry.part, entry.key.as_deref()), (7, 2, Some("k")));
        let plain = Look::default();
        assert_eq!(show(&entry, LINE, plain), "2026-11-23T08:07:11.123456Z log-1 visit warn: visit 12\n");
        let terminal = Look { terminal: true, colour: true, json: false };
        let text = show(&entry, LINE, terminal);
        assert!(
            text.starts_with("08:07:11.123 \x1b[") && text.ends_with("mlog-1\x1b[0m visit warn: visit 12\n"),
            "{text:?}"
        );
        assert_eq!(show(&entry, LINE, Look { json: true, ..plain }), format!("{LINE}\n"));
        assert_eq!(read("no entry"), None);
    }

    #[test]
    fn text_of_others_is_no_entry_and_no_command() {
        let line = r#"{"ts":"T","seq":1,"instance":"log-1","msg":"a\r\nT log-1 -: forged\u001b[2J\u202e"}"#;
        let entry = read(line).unwrap();
        assert_eq!(
            show(&entry, line, Look::default()),
            "T log-1 -: a\n    | T log-1 -: forged\\u{1b}[2J\\u{202e}\n"
        );
    }

    proptest! {
        #[test]
        fn nothing_reaches_the_terminal_that_commands_it(msg in any::<String>(), instance in any::<String>()) {
            let entry = Entry { ts: msg.clone(), seq: 1, instance, source: Some(msg.clone()), level: None, key: None, part: 0, msg };
            let text = show(&entry, "", Look::default());
            prop_assert!(text.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
            prop_assert!(text.trim_end_matches('\n').split('\n').skip(1).all(|line| line.starts_with("    | ")));
        }
    }
}
