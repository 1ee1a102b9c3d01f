//! A regular expression for lines. Pure.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use regex_automata::Input;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson::Config;

/// Longest pattern, in bytes, and largest compiled one.
const MAX_PATTERN: usize = 1_000;
const MAX_PROGRAM: usize = 512 << 10;

/// A compiled pattern. Clones share it.
#[derive(Clone)]
pub struct LinePattern(Arc<Compiled>);

struct Compiled {
    text: String,
    dfa: DFA,
    cache: Mutex<Cache>,
}

impl LinePattern {
    /// Compiles a pattern in the syntax of the regex crate.
    ///
    /// # Errors
    /// If it is invalid or too large.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.len() > MAX_PATTERN {
            return Err(format!("the pattern is longer than {MAX_PATTERN} bytes"));
        }
        let config = Config::new().nfa_size_limit(Some(MAX_PROGRAM));
        let unicode_words = DFA::config().unicode_word_boundary(true);
        let dfa = DFA::builder().configure(unicode_words).thompson(config).build(text);
        let dfa = dfa.map_err(|error| format!("{text:?} is not a valid pattern: {error}"))?;
        let cache = Mutex::new(dfa.create_cache());
        Ok(Self(Arc::new(Compiled { text: text.to_owned(), dfa, cache })))
    }

    /// Whether the pattern is found in the line. A line with letters other than ASCII's beside `\b` does not match.
    pub(crate) fn matches(&self, line: &str) -> bool {
        let mut cache = self.0.cache.lock();
        matches!(self.0.dfa.try_search_fwd(&mut cache, &Input::new(line).earliest(true)), Ok(Some(_)))
    }
}

impl fmt::Display for LinePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl fmt::Debug for LinePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinePattern({:?})", self.0.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_found_anywhere_in_a_line() {
        let pattern = LinePattern::new(r"listening on .*:\d+").unwrap();
        assert!(pattern.matches("INFO: listening on http://127.0.0.1:8000 (ü)"));
        assert!(!pattern.matches("listening soon"));
        assert!(LinePattern::new("(").is_err());
        assert!(LinePattern::new(&"x".repeat(2000)).is_err());
        assert!(LinePattern::new(r"(\w{1000}){1000}").is_err());
    }
}
