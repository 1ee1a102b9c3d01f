//! Under which keys loggers write the level of an entry. Pure.

use std::borrow::Cow;

use crate::entry::Level;

/// The level that a member of a JSON object gives, and whether our name for it says as much. `None` if the key is not
/// one for levels, or the level is unknown.
pub(super) fn level_of(key: &str, json: &str) -> Option<(Level, bool)> {
    let from_number: fn(u32) -> Option<Level> = match key {
        "level" | "severity" | "lvl" | "loglevel" | "levelname" | "log.level" | "@level" | "@l"
        | "severity_text" | "severityText" | "SeverityText" => Level::from_number,
        "levelno" => Level::from_python,
        "severity_number" | "severityNumber" | "SeverityNumber" => Level::from_otlp,
        _ => return None,
    };
    match json.parse() {
        Ok(number) => Some((from_number(number)?, false)),
        Err(_) => {
            let text: Cow<'_, str> = serde_json::from_str(json).ok()?;
            let level: Level = text.parse().ok()?;
            Some((level, text.eq_ignore_ascii_case(level.as_str())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_logger_has_its_key_and_its_numbers() {
        for (key, json, level) in [
            ("level", "\"ERROR\"", Some((Level::Error, true))),
            ("level", "\"err\"", Some((Level::Error, false))),
            ("level", "30", Some((Level::Info, false))),
            ("level", "\"30\"", Some((Level::Info, false))),
            ("level", "4", Some((Level::Warn, false))),
            ("levelname", "\"WARNING\"", Some((Level::Warn, false))),
            ("levelno", "30", Some((Level::Warn, false))),
            ("severityNumber", "17", Some((Level::Error, false))),
            ("@l", "\"Verbose\"", Some((Level::Trace, false))),
            ("level", "\"loud\"", None),
            ("level", "null", None),
            ("level", "-1", None),
            ("level", "{\"name\":\"INFO\"}", None),
            ("user", "\"error\"", None),
        ] {
            assert_eq!(level_of(key, json), level, "{key} {json}");
        }
    }
}
