//! The keys of the last batches, so that a batch sent again is not stored again. Pure.
//!
//! Bounded by count: the oldest key is forgotten first. What the window no longer knows is stored twice, and
//! readers can still tell by the key in the entries.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// The numbers of a stored batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

pub(crate) struct Window {
    known: HashMap<Arc<str>, Range>,
    order: VecDeque<Arc<str>>,
    limit: usize,
}

impl Window {
    pub(crate) fn new(limit: usize) -> Self {
        Self { known: HashMap::new(), order: VecDeque::new(), limit }
    }

    pub(crate) fn get(&self, key: &str) -> Option<Range> {
        self.known.get(key).copied()
    }

    pub(crate) fn insert(&mut self, key: &str, range: Range) {
        if self.limit == 0 {
            return;
        }
        let key: Arc<str> = key.into();
        if self.known.insert(Arc::clone(&key), range).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > self.limit {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_key_is_forgotten_first() {
        let mut window = Window::new(2);
        for (n, key) in ["a", "b", "a", "c"].into_iter().enumerate() {
            window.insert(key, Range { first: n as u64, last: n as u64 });
        }
        assert_eq!(window.get("a"), None);
        assert_eq!(window.get("b"), Some(Range { first: 1, last: 1 }));
        assert_eq!(window.get("c"), Some(Range { first: 3, last: 3 }));
    }
}
