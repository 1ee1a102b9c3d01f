//! Lines of access logs in the formats of Apache and nginx.

/// The level and the time's text of a line such as
/// `127.0.0.1 - - [26/Nov/2026:15:04:05 +0000] "GET / HTTP/1.1" 200 612 …`. Errors of the server are errors.
pub(super) fn recognize(line: &str) -> Option<(&'static str, Option<&str>)> {
    let (before, status) = ["HTTP/1.1\" ", "HTTP/2.0\" ", "HTTP/1.0\" ", "HTTP/2\" ", "HTTP/3.0\" "]
        .iter()
        .find_map(|version| line.split_once(version))?;
    let digits = status.get(..3).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let level = if digits.starts_with('5') { "error" } else { "info" };
    let time = before.find('[').map(|at| &before[at..]);
    Some((level, time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_logs_have_the_level_of_their_status() {
        let line =
            |status: &str| format!("::1 - - [26/Nov/2026:15:04:05 +0000] \"GET / HTTP/1.1\" {status} 612");
        for (status, level) in [("200", "info"), ("404", "info"), ("502", "error")] {
            let line = line(status);
            let (found, time) = recognize(&line).unwrap();
            assert_eq!(found, level);
            assert!(time.unwrap().starts_with("[26/Nov/2026:15:04:05 +0000]"));
        }
        assert_eq!(recognize("INFO:  127.0.0.1:1 - \"GET / HTTP/1.1\" 500 x"), Some(("error", None)));
        assert_eq!(recognize("HTTP/1.1\" abc"), None);
        assert_eq!(recognize("plain"), None);
    }
}
