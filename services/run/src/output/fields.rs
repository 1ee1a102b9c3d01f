//! `key=value` pairs, as logfmt has them.

/// Most pairs that are read of one line.
const MAX_PAIRS: usize = 64;

/// The pairs of a line that is logfmt: nothing but pairs, at least two. Quotes around values are removed.
pub(super) fn logfmt(line: &str) -> Option<Vec<(&str, String)>> {
    let mut pairs = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let key_len =
            rest.find(|c: char| !c.is_ascii_alphanumeric() && !"_.-@/".contains(c)).unwrap_or(rest.len());
        let (key, after) = rest.split_at(key_len);
        if key.is_empty() || pairs.len() == MAX_PAIRS {
            return None;
        }
        let value = after.strip_prefix('=')?;
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = value.find(char::is_whitespace).unwrap_or(value.len());
                (value[..end].to_owned(), &value[end..])
            }
        };
        pairs.push((key, value));
        rest = after.trim_start();
    }
    (pairs.len() >= 2).then_some(pairs)
}

/// The text up to the closing quote, and what follows.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                other => value.push(other),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_logfmt() {
        let pairs = logfmt(r#"time=2026-11-26T15:04:05Z level=INFO msg="it \"works\"" n=1 empty="#).unwrap();
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| (*key, value.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("time", "2026-11-26T15:04:05Z"),
                ("level", "INFO"),
                ("msg", "it \"works\""),
                ("n", "1"),
                ("empty", "")
            ]
        );
        for line in ["", "a=1", "a text with b=2 c=3", "a=1 text", "a=\"open b=2", "=1 b=2"] {
            assert_eq!(logfmt(line), None, "{line}");
        }
        assert_eq!(logfmt(&"a=1 ".repeat(1000)), None, "bounded");
    }
}
