//! The times that senders give their entries. Pure.
//!
//! An entry is sorted and found by its own time, if that is credible: not after its arrival, and at most an hour
//! before it. Exporters send in batches and retry, and clocks differ; beyond that, a clock is wrong.

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};

/// Longest credible delay between an event and its arrival.
const MAX_DELAY: SignedDuration = SignedDuration::from_hours(1);

/// `time`, if an entry that arrives at `arrival` can be of that time.
pub(super) fn credible(time: Timestamp, arrival: Timestamp) -> Option<Timestamp> {
    let delay = arrival.duration_since(time);
    (SignedDuration::ZERO..=MAX_DELAY).contains(&delay).then_some(time)
}

/// The time that a member of a JSON object gives: RFC 3339, or a number since 1970, in seconds, milliseconds,
/// microseconds or nanoseconds by its size. `None` if the key is not one for times, or the time has no time zone.
pub(super) fn time_of(key: &str, json: &str) -> Option<Timestamp> {
    if !matches!(key, "ts" | "time" | "timestamp" | "@timestamp" | "@t") {
        return None;
    }
    if json.starts_with('"') {
        let text: Cow<'_, str> = serde_json::from_str(json).ok()?;
        return text.parse().ok().or_else(|| since_1970(&text));
    }
    since_1970(json)
}

fn since_1970(number: &str) -> Option<Timestamp> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    // Three digits more are a thousandth of the unit. Seconds have 10 digits until the year 2286.
    let decimals = match whole.len() {
        9..=11 => 9,
        12..=14 => 6,
        15..=17 => 3,
        18..=20 => 0,
        _ => return None,
    };
    let fraction = fraction.get(..decimals).unwrap_or(fraction);
    let nanoseconds: i128 = format!("{whole}{fraction:0<decimals$}").parse().ok()?;
    Timestamp::from_nanosecond(nanoseconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loggers_write_times_in_many_ways() {
        let time: Timestamp = "2026-11-23T08:07:11.25Z".parse().unwrap();
        for (key, json) in [
            ("ts", "1795421231.25"),
            ("time", "1795421231250"),
            ("timestamp", "1795421231250000"),
            ("ts", "1795421231250000000"),
            ("ts", "\"1795421231250000000\""),
            ("ts", "1795421231250.0"),
            ("time", "\"2026-11-23T08:07:11.250Z\""),
            ("@timestamp", "\"2026-11-23T09:07:11.25+01:00\""),
        ] {
            assert_eq!(time_of(key, json), Some(time), "{key} {json}");
        }
        for (key, json) in [
            ("ts", "\"2026-11-23 08:07:11,250\""),
            ("ts", "\"yesterday\""),
            ("ts", "17"),
            ("ts", "-1795421231"),
            ("ts", "1.5e300"),
            ("ts", "null"),
            ("ts", "999999999999999999999"),
            ("other", "1795421231"),
        ] {
            assert_eq!(time_of(key, json), None, "{key} {json}");
        }
    }

    #[test]
    fn a_time_is_credible_up_to_an_hour_before_the_arrival() {
        let arrival: Timestamp = "2026-11-23T08:00:00Z".parse().unwrap();
        let credible = |time: &str| credible(time.parse().unwrap(), arrival).is_some();
        assert!(credible("2026-11-23T08:00:00Z") && credible("2026-11-23T07:00:00Z"));
        assert!(!credible("2026-11-23T06:59:59.999Z") && !credible("2026-11-23T08:00:00.000001Z"));
    }
}
