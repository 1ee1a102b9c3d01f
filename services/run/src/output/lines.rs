//! Bytes into lines of bounded length.

/// Longest line, in bytes; a longer one is split.
pub(crate) const MAX_LINE: usize = 32 << 10;

/// Collects bytes until a line is complete.
#[derive(Debug, Default)]
pub(crate) struct LineSplitter {
    partial: Vec<u8>,
}

impl LineSplitter {
    /// Adds bytes and gives each complete line, without its line break, to `take`.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut take: impl FnMut(String)) {
        while let Some(at) = bytes.iter().position(|&byte| byte == b'\n') {
            self.add(&bytes[..at], &mut take);
            take(text(&std::mem::take(&mut self.partial)));
            bytes = &bytes[at + 1..];
        }
        self.add(bytes, &mut take);
    }

    /// The line that has no end yet.
    pub(crate) fn finish(&mut self) -> Option<String> {
        let partial = std::mem::take(&mut self.partial);
        (!partial.is_empty()).then(|| text(&partial))
    }

    fn add(&mut self, mut bytes: &[u8], take: &mut impl FnMut(String)) {
        while self.partial.len() + bytes.len() > MAX_LINE {
            let mut room = MAX_LINE.saturating_sub(self.partial.len()).min(bytes.len());
            // A character is not split: at most three bytes of it come before.
            let back = bytes[..room].iter().rev().take(3).take_while(|&&byte| byte & 0xc0 == 0x80).count();
            if bytes.get(room).is_some_and(|byte| byte & 0xc0 == 0x80) && room > back {
                room -= back + 1;
            }
            self.partial.extend_from_slice(&bytes[..room]);
            take(text(&std::mem::take(&mut self.partial)));
            bytes = &bytes[room..];
        }
        self.partial.extend_from_slice(bytes);
    }
}

/// The part that a terminal would show of a line in which carriage returns go back to its start, as progress bars do.
fn text(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let shown = text.rsplit('\r').find(|part| !part.trim().is_empty());
    shown.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<String> {
        let (mut splitter, mut lines) = (LineSplitter::default(), Vec::new());
        for chunk in chunks {
            splitter.push(chunk, |line| lines.push(line));
        }
        lines.extend(splitter.finish());
        lines
    }

    #[test]
    fn lines_are_found_however_the_bytes_are_cut() {
        for (chunks, expected) in [
            (&[&b"a\nb\n"[..]][..], &["a", "b"][..]),
            (&[b"a", b"b\n", b"c"], &["ab", "c"]),
            (&[b"a\r", b"\nb\r\n"], &["a", "b"]),
            (&[b"\n\n"], &["", ""]),
            (&[b" 10 %\r 50 %\r100 %\n"], &["100 %"]),
            (&[b"working...\r          \r\n"], &["working..."]),
            (&[b"\xff\xfe\n"], &["\u{fffd}\u{fffd}"]),
            (&["ü".as_bytes().split_at(1).0, "ü".as_bytes().split_at(1).1, b"\n"], &["ü"]),
        ] {
            assert_eq!(split(chunks), expected);
        }
    }

    #[test]
    fn a_long_line_is_split_between_characters() {
        let long = "ü".repeat(MAX_LINE) + "\nnext\n";
        let lines = split(&[long.as_bytes()]);
        assert_eq!(lines.last().unwrap(), "next");
        assert!(lines.iter().all(|line| line.len() <= MAX_LINE && !line.contains('\u{fffd}')));
        assert_eq!(lines[..lines.len() - 1].concat().len(), 2 * MAX_LINE);
        let lines = split(&[&[0x80; 3 * MAX_LINE]]);
        assert!(lines.len() >= 3, "bytes that are not UTF-8 come to an end too");
    }
}
