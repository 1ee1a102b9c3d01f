//! Text that others wrote, made fit for a line on a terminal. Pure.

use std::error::Error;

/// Longest detail of a problem document that is shown, in characters.
const MAX_DETAIL: usize = 300;

/// The `detail` of a problem document, or the text of any other error response, on one line.
pub(crate) fn problem_detail(body: &[u8]) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let detail = problem.as_ref().and_then(|problem| problem.get("detail")?.as_str());
    one_line(detail.unwrap_or(&String::from_utf8_lossy(body)), MAX_DETAIL)
}

/// `text` on one line of at most `max` characters: white space and control characters become single spaces.
pub(crate) fn one_line(text: &str, max: usize) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    if line.chars().count() <= max { line } else { line.chars().take(max - 1).chain(['…']).collect() }
}

/// The innermost cause, which is the one that people can act on: `Connection refused (os error 111)`.
pub(crate) fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_error_response() {
        assert_eq!(
            problem_detail(br#"{"title":"Not Found","detail":"no service is called \"x\""}"#),
            "no service is called \"x\""
        );
        assert_eq!(problem_detail(b"<html>\n\x1b[31m gone"), "<html> [31m gone");
        assert_eq!(problem_detail(b""), "");
        assert_eq!(one_line(&"a".repeat(9), 5), "aaaa…");
    }
}
