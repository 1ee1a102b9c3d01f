//! What another service's error reply says, for people. Pure.

/// Longest text that is shown, in characters.
const MAX: usize = 300;

/// The `detail` of a problem document, or the text of any other reply, on one line and without control characters.
pub(crate) fn detail(body: &[u8]) -> String {
    let document: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let said = document.as_ref().and_then(|document| document.get("detail")?.as_str());
    one_line(said.unwrap_or(&String::from_utf8_lossy(body)), MAX)
}

/// Text of others on one line: white space and control characters become single spaces, `max` characters at most.
pub(crate) fn one_line(text: &str, max: usize) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    if line.chars().count() <= max { line } else { line.chars().take(max - 1).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_error_reply_says() {
        assert_eq!(
            detail(br#"{"title":"Not Found","detail":"no service is called \"x\""}"#),
            "no service is called \"x\""
        );
        assert_eq!(detail(b"<html>\n\x1b[31m gone"), "<html> [31m gone");
        assert_eq!(detail(b""), "");
        assert_eq!(one_line(&"a".repeat(9), 5), "aaaa…");
    }
}
