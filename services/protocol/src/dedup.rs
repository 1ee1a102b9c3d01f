//! A bounded window of keys. Pure.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Remembers the last keys, each with a value. The oldest key is forgotten first.
///
/// ```
/// use hubspoke_protocol::DedupWindow;
///
/// let mut seen = DedupWindow::new(2);
/// assert!(seen.insert("a", ()));
/// assert!(!seen.insert("a", ()), "a copy");
/// assert!(seen.insert("b", ()) && seen.insert("c", ()));
/// assert!(seen.insert("a", ()), "forgotten: the window holds two keys");
/// ```
#[derive(Debug, Clone)]
pub struct DedupWindow<K, V = ()> {
    values: HashMap<K, V>,
    /// In order of first insertion.
    keys: VecDeque<K>,
    capacity: usize,
}

impl<K: Clone + Eq + Hash, V> DedupWindow<K, V> {
    /// An empty window of at most `capacity` keys. One of no keys recognizes nothing.
    pub fn new(capacity: usize) -> Self {
        Self { values: HashMap::new(), keys: VecDeque::new(), capacity }
    }

    /// The value of a key that is still in the window.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.values.get(key)
    }

    /// How many keys it remembers now.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether it remembers no key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Adds a key or replaces its value. Returns whether the key is new. A known key keeps its age.
    pub fn insert(&mut self, key: K, value: V) -> bool {
        let new = self.values.insert(key.clone(), value).is_none();
        if new {
            self.keys.push_back(key);
            if self.keys.len() > self.capacity
                && let Some(oldest) = self.keys.pop_front()
            {
                self.values.remove(&oldest);
            }
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_key_is_forgotten_first() {
        let mut window = DedupWindow::new(2);
        let new = ["a", "b", "a", "c"].into_iter().zip(0..).map(|(key, n)| window.insert(key, n));
        assert_eq!(new.collect::<Vec<_>>(), [true, true, false, true]);
        assert_eq!((window.get("a"), window.get("b"), window.get("c")), (None, Some(&1), Some(&3)));
    }

    #[test]
    fn memory_is_bounded_by_the_capacity() {
        for capacity in [0, 1, 7] {
            let mut window = DedupWindow::new(capacity);
            assert!((0..100).all(|key| window.insert(key, ())));
            assert_eq!((window.len(), window.values.len()), (capacity, capacity));
        }
    }
}
