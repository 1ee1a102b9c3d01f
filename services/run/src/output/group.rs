//! Lines that belong together: stack traces.

/// Longest group, in lines and bytes.
const MAX_LINES: usize = 300;
const MAX_BYTES: usize = 48 << 10;

/// Collects the lines of a text. A line that is indented, or continues what a runtime prints when a program fails,
/// belongs to the one before it.
#[derive(Debug, Default)]
pub(crate) struct Grouper {
    text: String,
    lines: usize,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Plain,
    /// Python: up to and with the first line that is not indented.
    Traceback,
    /// Python: after that line.
    Raised,
    /// Go: functions are not indented, their places are.
    Panic,
}

impl Grouper {
    /// Adds a line. Returns the text before it, if the line does not belong to that.
    pub(crate) fn push(&mut self, line: &str) -> Option<String> {
        let full = self.lines >= MAX_LINES || self.text.len() + line.len() > MAX_BYTES;
        let kind = (self.lines > 0 && !full).then(|| self.continued(line)).flatten();
        if let Some(kind) = kind {
            self.kind = kind;
            self.text.push('\n');
            self.text.push_str(line);
            self.lines += 1;
            return None;
        }
        let finished = self.finish();
        self.kind = start(line);
        line.clone_into(&mut self.text);
        self.lines = 1;
        finished
    }

    /// The text so far, if there is any.
    pub(crate) fn finish(&mut self) -> Option<String> {
        self.lines = 0;
        let text = std::mem::take(&mut self.text);
        let text = text.trim_end();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// Whether text is waiting for more lines.
    pub(crate) fn is_pending(&self) -> bool {
        self.lines > 0
    }

    /// The kind of the group with this line; `None` if the line does not belong to it.
    fn continued(&self, line: &str) -> Option<Kind> {
        let indented = line.starts_with([' ', '\t']) && !line.trim().is_empty();
        match self.kind {
            Kind::Traceback if indented || line.is_empty() => Some(Kind::Traceback),
            Kind::Traceback => Some(Kind::Raised),
            Kind::Raised if line.starts_with("Traceback (most recent call last):") => Some(Kind::Traceback),
            Kind::Raised if line.is_empty() || line.starts_with("During handling of the above exception") => {
                Some(Kind::Raised)
            }
            Kind::Raised if line.starts_with("The above exception was the direct cause") => {
                Some(Kind::Raised)
            }
            Kind::Panic if line.starts_with("exit status ") => Some(Kind::Plain),
            Kind::Panic if indented || line.is_empty() => Some(Kind::Panic),
            Kind::Panic if line.starts_with("goroutine ") || line.starts_with("[signal ") => {
                Some(Kind::Panic)
            }
            Kind::Panic if line.starts_with("created by ") || line.ends_with(')') => Some(Kind::Panic),
            Kind::Panic => None,
            Kind::Plain | Kind::Raised => (indented || is_cause(line)).then_some(self.kind),
        }
    }
}

fn start(line: &str) -> Kind {
    if line.contains("Traceback (most recent call last):") {
        Kind::Traceback
    } else if line.starts_with("panic: ")
        || line.starts_with("fatal error: ")
        || line.starts_with("goroutine ")
    {
        Kind::Panic
    } else {
        Kind::Plain
    }
}

/// A further cause of a Java exception.
fn is_cause(line: &str) -> bool {
    line.starts_with("Caused by: ") || line.starts_with("Suppressed: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(text: &str) -> Vec<String> {
        let mut grouper = Grouper::default();
        let mut groups: Vec<String> = text.split('\n').filter_map(|line| grouper.push(line)).collect();
        groups.extend(grouper.finish());
        groups
    }

    #[test]
    fn stack_traces_are_kept_together() {
        let python = "Traceback (most recent call last):\n  File \"a.py\", line 1, in f\n    g()\nValueError: x\n\n\
                      During handling of the above exception, another exception occurred:\n\n\
                      Traceback (most recent call last):\n  File \"a.py\", line 2\nKeyError: 'y'";
        let logged = "ERROR:root:it broke\nnext";
        let java = "java.lang.RuntimeException: x\n\tat A.f(A.java:1)\n\tat A.g(A.java:2)\nCaused by: java.io.IOException\n\
                    \t... 3 more";
        let node = "Error: x\n    at f (/a.js:1:1)\n    at g (/a.js:2:2) {\n  code: 'E'\n}";
        let go = "panic: x\n\ngoroutine 1 [running]:\nmain.f(...)\n\t/a.go:1\nmain.main()\n\t/a.go:2 +0x1d\nexit status 2";
        for trace in [python, java, go] {
            let text = format!("before\n{trace}\nINFO: after");
            assert_eq!(group(&text), ["before", trace, "INFO: after"]);
        }
        assert_eq!(group(logged), ["ERROR:root:it broke", "next"]);
        assert_eq!(group(node), [node.strip_suffix("\n}").unwrap(), "}"]);
        let logged = "2026/11/26 12:00:00 ERROR x Traceback (most recent call last):\n  File\nValueError: x";
        assert_eq!(group(logged), [logged]);
        assert_eq!(group("a\n\nb\n   \nc"), ["a", "b", "c"], "empty lines are no entries");
    }

    #[test]
    fn a_group_is_bounded() {
        let text = "start\n".to_owned() + &"  more\n".repeat(3 * MAX_LINES);
        let groups = group(&text);
        assert!(groups.len() >= 3 && groups.iter().all(|group| group.lines().count() <= MAX_LINES));
        let text = "start\n".to_owned() + &(" ".to_owned() + &"x".repeat(1000) + "\n").repeat(200);
        assert!(group(&text).iter().all(|group| group.len() <= MAX_BYTES));
    }
}
