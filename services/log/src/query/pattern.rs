//! Regular expressions whose search can be interrupted, and whose memory is bounded. Pure.
//!
//! A search takes at most the length of the text times the size of the program, and both come from strangers: 250 kB
//! times ten thousand states is a minute. So the search is done twice at most. A lazy DFA, whose states fit a cache of
//! fixed size, answers nearly always, at some hundred MB/s. If the cache is full (some 20 ms), or the text is one that
//! a DFA can't judge (`\b` beside letters other than ASCII's), the program is simulated byte by byte, which gives the
//! same answer, and asks every few microseconds whether anybody still wants to know.

use std::fmt;

use parking_lot::Mutex;
use regex_automata::Input;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson::{Config, NFA, State, WhichCaptures};
use regex_automata::util::primitives::StateID;

/// Longest pattern, in bytes.
const MAX_PATTERN: usize = 1_000;
/// Largest compiled program, in bytes: 30 times `\w`, or 20,000 characters.
const MAX_PROGRAM: usize = 512 << 10;
/// Size of the lazy DFA's cache, in bytes.
const DFA_CACHE: usize = 512 << 10;
/// States visited between two questions whether to go on: some hundred microseconds.
const STEPS: usize = 4_096;

/// A compiled pattern. One search at a time: concurrent ones wait for each other.
pub(crate) struct Pattern {
    program: NFA,
    dfa: DFA,
    scratch: Mutex<Scratch>,
}

struct Scratch {
    cache: Cache,
    current: StateSet,
    next: StateSet,
    stack: Vec<StateID>,
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({} states)", self.program.states().len())
    }
}

impl Pattern {
    /// Compiles a pattern in the syntax of the regex crate. May take some 50 ms.
    pub(crate) fn new(pattern: &str) -> Result<Self, String> {
        if pattern.len() > MAX_PATTERN {
            return Err(format!("the pattern is longer than {MAX_PATTERN} bytes"));
        }
        let config = Config::new().nfa_size_limit(Some(MAX_PROGRAM)).which_captures(WhichCaptures::None);
        let program = NFA::compiler().configure(config).build(pattern).map_err(|error| {
            if error.size_limit().is_some() {
                return format!("the compiled pattern is larger than {MAX_PROGRAM} bytes; repeat less");
            }
            // The last line is the reason; those before it point at the position.
            let error =
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            error.lines().last().unwrap_or_default().to_owned()
        })?;
        // It gives up where its cache would have to be cleared.
        let config = DFA::config()
            .cache_capacity(DFA_CACHE)
            .skip_cache_capacity_check(true)
            .minimum_cache_clear_count(Some(0))
            .unicode_word_boundary(true);
        let dfa = DFA::builder().configure(config).build_from_nfa(program.clone());
        let dfa = dfa.map_err(|error| error.to_string())?;
        let states = program.states().len();
        let scratch = Scratch {
            cache: dfa.create_cache(),
            current: StateSet::new(states),
            next: StateSet::new(states),
            stack: Vec::new(),
        };
        Ok(Self { program, dfa, scratch: Mutex::new(scratch) })
    }

    /// Whether `text` matches; `None` if `go_on` ended the search.
    pub(crate) fn matches(&self, text: &str, go_on: &mut dyn FnMut() -> bool) -> Option<bool> {
        let scratch = &mut *self.scratch.lock();
        match self.dfa.try_search_fwd(&mut scratch.cache, &Input::new(text).earliest(true)) {
            Ok(found) => Some(found.is_some()),
            Err(_) => {
                // The next text has the whole cache again.
                scratch.cache.reset(&self.dfa);
                scratch.simulate(&self.program, text.as_bytes(), go_on)
            }
        }
    }
}

impl Scratch {
    /// Thompson's simulation: all states that the program can be in, after each byte.
    fn simulate(&mut self, program: &NFA, text: &[u8], go_on: &mut dyn FnMut() -> bool) -> Option<bool> {
        let Self { current, next, stack, .. } = self;
        current.clear();
        let mut steps = 0;
        for at in 0..=text.len() {
            // A match may begin anywhere.
            if current.add(program, program.start_anchored(), text, at, stack) {
                return Some(true);
            }
            steps += current.states.len() + 1;
            if steps >= STEPS {
                steps = 0;
                if !go_on() {
                    return None;
                }
            }
            let Some(&byte) = text.get(at) else { break };
            next.clear();
            for &id in &current.states {
                let to = match program.state(id) {
                    State::ByteRange { trans } => trans.matches_byte(byte).then_some(trans.next),
                    State::Sparse(transitions) => transitions.matches_byte(byte),
                    State::Dense(transitions) => transitions.matches_byte(byte),
                    _ => None,
                };
                if to.is_some_and(|to| next.add(program, to, text, at + 1, stack)) {
                    return Some(true);
                }
            }
            std::mem::swap(current, next);
        }
        Some(false)
    }
}

/// A set of states that is cleared in constant time.
struct StateSet {
    states: Vec<StateID>,
    /// Where in `states` a state is, if it is there.
    position: Vec<u32>,
}

impl StateSet {
    fn new(states: usize) -> Self {
        Self { states: Vec::new(), position: vec![0; states] }
    }

    fn clear(&mut self) {
        self.states.clear();
    }

    fn insert(&mut self, id: StateID) -> bool {
        let position = &mut self.position[id.as_usize()];
        if self.states.get(*position as usize) == Some(&id) {
            return false;
        }
        // There are fewer states than 2^31.
        *position = self.states.len() as u32;
        self.states.push(id);
        true
    }

    /// Adds a state, and those that it leads to without a byte. Returns whether the program has matched.
    fn add(&mut self, program: &NFA, id: StateID, text: &[u8], at: usize, stack: &mut Vec<StateID>) -> bool {
        stack.clear();
        stack.push(id);
        while let Some(id) = stack.pop() {
            if !self.insert(id) {
                continue;
            }
            match program.state(id) {
                State::Match { .. } => return true,
                State::Union { alternates } => stack.extend_from_slice(alternates),
                State::BinaryUnion { alt1, alt2 } => stack.extend([*alt1, *alt2]),
                State::Capture { next, .. } => stack.push(*next),
                State::Look { look, next } if program.look_matcher().matches(*look, text, at) => {
                    stack.push(*next)
                }
                _ => {}
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    /// Patterns for which a backtracker takes exponential time, a DFA exponential memory, or a simulation
    /// thousands of steps per byte.
    const HARD: [&str; 8] = [
        r"(?:a?){3000}\W\d\W",
        r"(a|b|ab)*(?:a|b){500}c",
        r"[ab]*a[ab]{1000}c",
        r"\b(?:a?){3000}zz\b",
        r"(?:(?:a?){50}){50}q",
        r"(?:a*)*(?:b*)*z",
        r"[\w\s]{12}#",
        r"(?i)(?:\pL\s?){8}#",
    ];

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(text, &mut || true).unwrap()
    }

    /// The text of a hard search: no DFA knows all its states, and no search ends early.
    fn hard_text() -> String {
        let mut state = 1_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if state & 1 == 0 { "a" } else { "b" }
        };
        (0..250_000).map(|_| random()).collect()
    }

    #[test]
    fn a_search_ends_soon_after_nobody_wants_to_know() {
        for pattern in HARD {
            let compiled = Pattern::new(pattern).unwrap();
            for text in [hard_text(), "a".repeat(250_000), "a\u{e4}".repeat(80_000)] {
                let (mut began, mut longest) = (Instant::now(), Duration::ZERO);
                let until = Instant::now() + Duration::from_millis(100);
                let found = compiled.matches(&text, &mut || {
                    longest = longest.max(began.elapsed());
                    began = Instant::now();
                    began < until
                });
                longest = longest.max(began.elapsed());
                assert_ne!(found, Some(true), "{pattern}");
                assert!(longest < Duration::from_secs(2), "{pattern}: {longest:?} without a question");
            }
        }
    }

    #[test]
    fn a_pattern_that_is_too_large_is_refused_with_the_limit() {
        for (pattern, reason) in [
            (r"[\w\s]{1000}", "the compiled pattern is larger than 524288 bytes; repeat less"),
            (r"(((a{100}){100}){100})", "the compiled pattern is larger than 524288 bytes; repeat less"),
            (r"(?:a?){8000}\W\d\W", "the compiled pattern is larger than 524288 bytes; repeat less"),
            (&r"\w".repeat(450), "the compiled pattern is larger than 524288 bytes; repeat less"),
            (&"x".repeat(1_001), "the pattern is longer than 1000 bytes"),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap_err(), reason);
        }
        for invalid in ["(", "[z-a]", r"\p{Nonsense}", &"(".repeat(900)] {
            assert!(Pattern::new(invalid).unwrap_err().len() < 200);
        }
        assert!(matches(r"^\w{20}$", "zwanzigbuchstabenlan"));
    }

    #[test]
    fn word_boundaries_hold_for_all_letters() {
        assert!(matches(r"\bошибка\b", "это ошибка, да"));
        assert!(!matches(r"\bber\b", "über"));
        assert!(matches(r"(?i)straße|ÄRGER$", "Kein ärger"));
        assert!(matches(r"(?m)^two$", "one\ntwo\nthree"));
    }

    const PARTS: &[&str] = &[
        "^", "$", "a", "b", "\u{e4}", ".", r"\w", r"\b", r"\B", "a*", "b?", "(a|bb)+", "[^a]?", "(?m:^b)",
        "(?i:A)",
    ];

    proptest! {
        /// The simulation against the lazy DFA.
        #[test]
        fn both_ways_to_search_agree(
            parts in proptest::collection::vec(proptest::sample::select(PARTS), 1..7),
            text in "[abc \u{e4}\n]{0,12}",
        ) {
            let pattern = Pattern::new(&parts.concat()).unwrap();
            let scratch = &mut *pattern.scratch.lock();
            let simulated = scratch.simulate(&pattern.program, text.as_bytes(), &mut || true);
            if let Ok(found) = pattern.dfa.try_search_fwd(&mut scratch.cache, &Input::new(&text)) {
                prop_assert_eq!(simulated, Some(found.is_some()));
            }
        }
    }
}
