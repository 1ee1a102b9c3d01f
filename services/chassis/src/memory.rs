//! How much memory others can make a process hold. Each bound is a size and a number; their products, summed over a
//! process, must fit the memory limit of its container. `docs/security.md` has the table, and a test computes the sums
//! from the defaults.

/// Memory that others can make this process hold: `count` things of at most `size` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBound {
    /// The things, in a few words.
    pub what: &'static str,
    /// Bytes of one, at most.
    pub size: usize,
    /// How many there are, at most.
    pub count: usize,
}

impl MemoryBound {
    /// `count` things of at most `size` bytes.
    pub const fn new(what: &'static str, size: usize, count: usize) -> Self {
        Self { what, size, count }
    }

    /// Bytes of all of them.
    pub const fn total(&self) -> usize {
        self.size.saturating_mul(self.count)
    }
}
