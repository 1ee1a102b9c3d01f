//! Untrusted text, made fit for a line on a terminal. Pure.

use hubspoke_protocol::problem::ProblemDocument;
use reqwest::StatusCode;

/// Longest detail of a problem document that is shown, in characters.
const MAX_DETAIL: usize = 300;

/// The `detail` of a problem document, or the text of any other error response, on one line.
pub(crate) fn problem_detail(body: &[u8]) -> String {
    match serde_json::from_slice::<ProblemDocument>(body) {
        Ok(problem) if !problem.detail.is_empty() => one_line(&problem.detail, MAX_DETAIL),
        _ => one_line(&String::from_utf8_lossy(body), MAX_DETAIL),
    }
}

/// An answer that is not what was asked for.
pub(crate) fn refusal(status: StatusCode, body: &[u8]) -> String {
    let detail = problem_detail(body);
    if detail.is_empty() {
        format!("it answered {status}")
    } else {
        format!("it answered {status}: {detail}")
    }
}

/// `text` on one line of at most `max` characters: white space and control characters become single spaces.
pub(crate) fn one_line(text: &str, max: usize) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    if line.chars().count() <= max { line } else { line.chars().take(max - 1).chain(['…']).collect() }
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
