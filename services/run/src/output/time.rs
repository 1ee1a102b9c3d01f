//! Times in front of lines.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{Span, Timestamp};

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A time in front of a line: itself, unless its date is missing, and what follows it. A time without an offset is one
/// in `zone`.
pub(super) fn leading<'a>(line: &'a str, zone: &TimeZone) -> Option<(Option<Timestamp>, &'a str)> {
    let line = line.trim_start();
    let (bracketed, line) = line.strip_prefix('[').map_or((false, line), |inside| (true, inside));
    let (time, rest) = numeric(&mut Cursor(line), zone)
        .or_else(|| named_month(&mut Cursor(line), zone))
        .or_else(|| time_only(&mut Cursor(line)))?;
    let rest = if bracketed { rest.strip_prefix(']').unwrap_or(rest) } else { rest };
    let ends = rest.is_empty() || rest.starts_with(|c: char| c.is_whitespace() || "|:,;".contains(c));
    ends.then(|| (time, rest.trim_start_matches(|c: char| c.is_whitespace() || "|:,;-".contains(c))))
}

/// The time in a field: RFC 3339, or seconds, milliseconds, microseconds or nanoseconds since 1970.
pub(super) fn of_text(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    if let Ok(number) = text.parse::<f64>() {
        return of_number(number);
    }
    leading(text, zone)?.0
}

/// Seconds, milliseconds, microseconds or nanoseconds since 1970, whichever is near the present.
pub(super) fn of_number(number: f64) -> Option<Timestamp> {
    let micros = match number {
        1e8..1e11 => number * 1e6,
        1e11..1e14 => number * 1e3,
        1e14..1e17 => number,
        1e17..1e20 => number / 1e3,
        _ => return None,
    };
    #[expect(clippy::cast_possible_truncation, reason = "below 1e17")]
    Timestamp::from_microsecond(micros as i64).ok()
}

struct Cursor<'a>(&'a str);

impl Cursor<'_> {
    fn number(&mut self, digits: std::ops::RangeInclusive<usize>) -> Option<i16> {
        let len = self.0.bytes().take_while(u8::is_ascii_digit).count();
        if !digits.contains(&len) {
            return None;
        }
        let number = self.0[..len].parse().ok()?;
        self.0 = &self.0[len..];
        Some(number)
    }

    fn one_of(&mut self, chars: &[char]) -> Option<char> {
        let c = self.0.chars().next().filter(|c| chars.contains(c))?;
        self.0 = &self.0[c.len_utf8()..];
        Some(c)
    }

    fn month(&mut self) -> Option<i16> {
        let name = self.0.get(..3)?;
        let at = MONTHS.iter().position(|month| *month == name)?;
        self.0 = &self.0[3..];
        i16::try_from(at + 1).ok()
    }

    /// `15:04:05`, with a fraction.
    fn time(&mut self) -> Option<(Time, i64)> {
        let hour = self.number(1..=2)?;
        self.one_of(&[':'])?;
        let minute = self.number(2..=2)?;
        self.one_of(&[':'])?;
        let second = self.number(2..=2)?;
        let mut micros = 0;
        let fraction = self.0.strip_prefix(['.', ',']).unwrap_or_default();
        let len = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if (1..=9).contains(&len) {
            let digits: String = fraction[..len].chars().chain("000000".chars()).take(6).collect();
            micros = digits.parse().ok()?;
            self.0 = &fraction[len..];
        }
        let part = |number: i16| i8::try_from(number).ok();
        Some((Time::new(part(hour)?, part(minute)?, part(second)?, 0).ok()?, micros))
    }

    /// `Z`, `+01:00`, ` +0100`, ` UTC`.
    fn offset(&mut self) -> Option<Offset> {
        for utc in ["Z", " UTC", " GMT"] {
            if let Some(rest) = self.0.strip_prefix(utc) {
                self.0 = rest;
                return Some(Offset::UTC);
            }
        }
        let mut ahead = Self(self.0.strip_prefix(' ').unwrap_or(self.0));
        let sign = if ahead.one_of(&['+', '-'])? == '-' { -1 } else { 1 };
        let digits: String = ahead.0.chars().take(6).filter(|c| *c != ':').take(4).collect();
        let (hours, minutes) =
            (digits.get(..2)?.parse::<i32>().ok()?, digits.get(2..4)?.parse::<i32>().ok()?);
        let len = if ahead.0.get(2..3) == Some(":") { 5 } else { 4 };
        self.0 = ahead.0.get(len..)?;
        Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
    }
}

type Found<'a> = Option<(Option<Timestamp>, &'a str)>;

/// `2026-11-26T15:04:05.123Z`, `2026/11/26 15:04:05`.
fn numeric<'a>(cursor: &mut Cursor<'a>, zone: &TimeZone) -> Found<'a> {
    let year = cursor.number(4..=4)?;
    let separator = cursor.one_of(&['-', '/'])?;
    let month = cursor.number(2..=2)?;
    cursor.one_of(&[separator])?;
    let day = cursor.number(2..=2)?;
    cursor.one_of(&['T', ' '])?;
    finish(cursor, (year, month, day), zone)
}

/// `26/Nov/2026:15:04:05 +0000`, `26/Nov/2026 15:04:05`.
fn named_month<'a>(cursor: &mut Cursor<'a>, zone: &TimeZone) -> Found<'a> {
    let day = cursor.number(1..=2)?;
    let separator = cursor.one_of(&['/', '-', ' '])?;
    let month = cursor.month()?;
    cursor.one_of(&[separator])?;
    let year = cursor.number(4..=4)?;
    cursor.one_of(&[':', ' '])?;
    finish(cursor, (year, month, day), zone)
}

/// `15:04:05.123`, or a date of syslog (`Nov 26 15:04:05`), which has no year.
fn time_only<'a>(cursor: &mut Cursor<'a>) -> Found<'a> {
    if cursor.month().is_some() {
        cursor.0 = cursor.0.trim_start();
        cursor.number(1..=2)?;
        cursor.one_of(&[' '])?;
    }
    cursor.time()?;
    Some((None, cursor.0))
}

fn finish<'a>(cursor: &mut Cursor<'a>, (year, month, day): (i16, i16, i16), zone: &TimeZone) -> Found<'a> {
    let date = Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()?;
    let (time, micros) = cursor.time()?;
    let civil = DateTime::from_parts(date, time);
    let time = match cursor.offset() {
        Some(offset) => offset.to_timestamp(civil).ok()?,
        None => zone.to_ambiguous_timestamp(civil).compatible().ok()?,
    };
    Some((time.checked_add(Span::new().microseconds(micros)).ok(), cursor.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_loggers_write() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        for (line, time, rest) in [
            ("2026-11-26T15:04:05.123Z INFO x", "2026-11-26T15:04:05.123Z", "INFO x"),
            ("2026-11-26T15:04:05+01:00 x", "2026-11-26T14:04:05Z", "x"),
            ("2026-11-26 15:04:05,123 - app - INFO - x", "2026-11-26T14:04:05.123Z", "app - INFO - x"),
            ("[2026-11-26 15:04:05 +0000] [7] [INFO] x", "2026-11-26T15:04:05Z", "[7] [INFO] x"),
            ("2026/11/26 15:04:05 x", "2026-11-26T14:04:05Z", "x"),
            ("2026/11/26 15:04:05.000001 x", "2026-11-26T14:04:05.000001Z", "x"),
            ("[26/Nov/2026 15:04:05] \"GET /\"", "2026-11-26T14:04:05Z", "\"GET /\""),
            ("[26/Nov/2026:15:04:05 -0530] x", "2026-11-26T20:34:05Z", "x"),
            ("2026-11-26 15:04:05 UTC x", "2026-11-26T15:04:05Z", "x"),
            ("2026-11-26T15:04:05Z", "2026-11-26T15:04:05Z", ""),
            ("2026-11-26 15:04:05.123 | INFO | x", "2026-11-26T14:04:05.123Z", "INFO | x"),
        ] {
            let found = leading(line, &berlin).map(|(time, rest)| (time.map(|time| time.to_string()), rest));
            assert_eq!(found, Some((Some(time.to_owned()), rest)), "{line}");
        }
        for (line, rest) in [
            ("15:04:05.123 [main] INFO x", "[main] INFO x"),
            ("Nov 26 15:04:05 host x", "host x"),
            ("[15:04:05] x", "x"),
            ("[15:04:05 INFO app] x", "INFO app] x"),
        ] {
            assert_eq!(leading(line, &berlin), Some((None, rest)), "{line}");
        }
        for line in
            ["", "2026", "2026-13-01 00:00:00 x", "10.0.0.1 x", "[x] y", "12:34", "2026-11-26T15:04:05x"]
        {
            assert_eq!(leading(line, &berlin), None, "{line}");
        }
    }

    #[test]
    fn times_in_fields() {
        for text in
            ["2026-11-26T14:00:00Z", "1795701600", "1795701600000", "1795701600000000", "1795701600.0"]
        {
            let time = of_text(text, &TimeZone::UTC).map(|time| time.to_string());
            assert_eq!(time.as_deref(), Some("2026-11-26T14:00:00Z"), "{text}");
        }
        assert_eq!(of_text("soon", &TimeZone::UTC), None);
        assert_eq!(of_number(7.0), None);
    }
}
