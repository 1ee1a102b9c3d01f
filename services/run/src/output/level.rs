//! Levels in lines.

/// Words in front of the text in which a level may be.
const WORDS: usize = 7;

/// Our name of a level that a logger writes as `word`, in any case.
pub(super) fn level(word: &str) -> Option<&'static str> {
    Some(match word.to_ascii_uppercase().as_str() {
        "TRACE" | "TRC" | "FINER" | "FINEST" => "trace",
        "DEBUG" | "DBG" | "FINE" => "debug",
        "INFO" | "INF" | "INFORMATION" | "INFORMATIONAL" | "NOTICE" => "info",
        "WARN" | "WARNING" | "WRN" => "warn",
        "ERROR" | "ERR" | "SEVERE" | "CRITICAL" | "CRIT" | "FATAL" | "FTL" | "PANIC" | "ALERT" | "EMERG"
        | "EMERGENCY" => "error",
        _ => return None,
    })
}

/// The level in a field: a word, or a number of pino and bunyan (10 to 60).
pub(super) fn of_number(number: i64) -> Option<&'static str> {
    Some(match number {
        10..20 => "trace",
        20..30 => "debug",
        30..40 => "info",
        40..50 => "warn",
        50..=60 => "error",
        _ => return None,
    })
}

/// The level of a syslog priority, 0 to 7.
pub(super) fn of_priority(number: i64) -> Option<&'static str> {
    Some(match number {
        0..=3 => "error",
        4 => "warn",
        5 | 6 => "info",
        7 => "debug",
        _ => return None,
    })
}

/// The level in front of a text. `after_time` is whether a time came before it, as in a logger's line.
pub(super) fn leading(text: &str, after_time: bool) -> Option<&'static str> {
    for (at, token) in text.split_whitespace().take(if after_time { WORDS } else { 3 }).enumerate() {
        let bracketed = token.starts_with(['[', '<', '(', '|']);
        let inner = token.trim_start_matches(['[', '<', '(', '|']);
        let end = inner.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(inner.len());
        let (word, after) = inner.split_at(end);
        let whole = after.is_empty() || after.starts_with([']', '>', ')', '|', ':', ',']);
        let Some(level) = level(word).filter(|_| whole) else { continue };
        let upper = word.bytes().all(|byte| byte.is_ascii_uppercase());
        let delimited = bracketed || after.starts_with(':');
        let plausible = match (after_time, at) {
            (true, 0) => true,
            (true, _) => upper || bracketed,
            (false, 0) => upper || delimited,
            (false, _) => upper && bracketed,
        };
        if plausible {
            return Some(level);
        }
    }
    None
}

/// The level of glog and klog: `I0102 15:04:05.678901  1 main.go:7] …`.
pub(super) fn glog(line: &str) -> Option<&'static str> {
    let bytes = line.as_bytes();
    let dated = bytes.len() > 6
        && bytes[1..5].iter().all(u8::is_ascii_digit)
        && bytes[5] == b' '
        && line.contains("] ");
    if !dated {
        return None;
    }
    match bytes[0] {
        b'I' => Some("info"),
        b'W' => Some("warn"),
        b'E' | b'F' => Some("error"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_in_front_of_a_text() {
        for (text, after_time, expected) in [
            ("INFO:     Uvicorn running on http://127.0.0.1:8000", false, Some("info")),
            ("WARNING:root:careful", false, Some("warn")),
            ("[error] it broke", false, Some("error")),
            ("error: it broke", false, Some("error")),
            ("[main] ERROR com.example.App - it broke", true, Some("error")),
            ("[1] [INFO] Booting worker", true, Some("info")),
            (" INFO 123 --- [main] c.e.App : started", true, Some("info")),
            ("info\tmain.go:12\tstarted", true, Some("info")),
            ("- app.views - WARNING - careful", true, Some("warn")),
            ("errors were found", true, None),
            ("error handling is on", false, None),
            ("GET /error 200", false, None),
            ("GET /error 200", true, None),
            ("INFORM them", false, None),
            ("a b c d e f g ERROR", true, None),
            ("", true, None),
        ] {
            assert_eq!(leading(text, after_time), expected, "{text}");
        }
        assert_eq!(glog("W0102 15:04:05.678901    1 main.go:7] careful"), Some("warn"));
        assert_eq!(glog("I0102"), None);
        assert_eq!(glog("X0102 15:04:05.678901    1 main.go:7] careful"), None);
    }
}
