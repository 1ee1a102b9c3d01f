//! Removes control sequences.

/// Whether colours are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colors {
    /// For a terminal.
    Keep,
    /// For entries and files.
    Remove,
}

/// A line without control characters, but for tabs and, if wanted, colours and styles (`ESC [ … m`).
pub(crate) fn clean(line: &str, colors: Colors) -> String {
    let mut cleaned = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(|c: char| c.is_control() && c != '\t') {
        cleaned.push_str(&rest[..at]);
        let (skip, style) = sequence(&rest[at..]);
        if style && colors == Colors::Keep {
            cleaned.push_str(&rest[at..at + skip]);
        }
        rest = &rest[at + skip..];
    }
    cleaned.push_str(rest);
    cleaned
}

/// The length of the control sequence that `text` begins with, and whether it is a colour or style.
fn sequence(text: &str) -> (usize, bool) {
    let mut chars = text.char_indices();
    let first = chars.next().map_or(0, |(_, c)| c.len_utf8());
    let introducer = match chars.next() {
        Some((_, c)) if text.starts_with('\u{1b}') => c,
        _ => return (first, false),
    };
    match introducer {
        '[' => match text[2..].find(|c: char| ('@'..='~').contains(&c) || c.is_control()) {
            Some(end) if !text[2 + end..].starts_with(char::is_control) => {
                let style = text.as_bytes()[2 + end] == b'm'
                    && text[2..2 + end].bytes().all(|byte| byte.is_ascii_digit() || b";:".contains(&byte));
                (2 + end + 1, style)
            }
            Some(end) => (2 + end, false),
            None => (text.len(), false),
        },
        // OSC, DCS, SOS, PM and APC end with BEL or ESC \.
        ']' | 'P' | 'X' | '^' | '_' => match text[2..].find(['\u{7}', '\u{1b}']) {
            Some(end) if text[2 + end..].starts_with("\u{1b}\\") => (2 + end + 2, false),
            Some(end) => (2 + end + 1, false),
            None => (text.len(), false),
        },
        // Intermediates and a final character.
        ' '..='/' => (2 + text[2..].chars().next().map_or(0, char::len_utf8), false),
        c if c.is_control() => (1, false),
        c => (1 + c.len_utf8(), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_go_and_colours_stay_on_request() {
        for (line, plain, colored) in [
            ("plain\ttext ü", "plain\ttext ü", "plain\ttext ü"),
            ("\u{1b}[32mINFO\u{1b}[0m ok", "INFO ok", "\u{1b}[32mINFO\u{1b}[0m ok"),
            ("\u{1b}[38;5;12mx\u{1b}[38:2::1:2:3mx", "xx", "\u{1b}[38;5;12mx\u{1b}[38:2::1:2:3mx"),
            ("\u{1b}[2J\u{1b}[1;1Hgone", "gone", "gone"),
            ("\u{1b}[>4;1mx", "x", "x"),
            ("\u{1b}]0;title\u{7}x\u{1b}]8;;http://h\u{1b}\\link", "xlink", "xlink"),
            ("\u{1b}(Bx\u{1b}7y\u{1b}", "xy", "xy"),
            ("a\u{7}b\u{0}c\u{9b}31md", "abc31md", "abc31md"),
            ("\u{1b}[31", "", ""),
            ("\u{1b}[3\u{1b}[32mx", "x", "\u{1b}[32mx"),
            ("\u{1b}\u{1b}[1mx\u{1b}ü", "x", "\u{1b}[1mx"),
        ] {
            assert_eq!(clean(line, Colors::Remove), plain, "{line:?}");
            assert_eq!(clean(line, Colors::Keep), colored, "{line:?}");
        }
    }
}
