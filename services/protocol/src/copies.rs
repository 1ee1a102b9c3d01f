//! Which stored entries are copies of one. Pure.
//!
//! A sender that gets no acknowledgement sends its entries again under the same key, perhaps to another log instance,
//! so one entry may be stored twice. Anybody may use any key. So a key counts only together with its sender, and a
//! copy is one only if the content agrees too: otherwise whoever knows a key could hide another sender's entry.

use std::hash::{BuildHasher, Hash, RandomState};

use crate::dedup::DedupWindow;

/// A 128-bit hash under keys that are drawn at random for each `KeyedHash`, so nobody can construct two values that
/// collide. Clones agree with each other, and with nothing else.
#[derive(Debug, Clone, Default)]
pub struct KeyedHash([RandomState; 2]);

impl KeyedHash {
    /// The hash of a value.
    pub fn of(&self, value: &impl Hash) -> u128 {
        let [high, low] = self.0.each_ref().map(|keys| u128::from(keys.hash_one(value)));
        high << 64 | low
    }
}

/// What the copies of an entry have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntryIdentity<'a> {
    /// `source` and `source_id`: the sender, if it is a member.
    pub source: (Option<&'a str>, Option<&'a str>),
    /// `client`: the sender's address, if it is not.
    pub client: Option<&'a str>,
    /// `key`: the sender's.
    pub key: &'a str,
    /// `part` and `of`: the place in the batch with this key; 0 and 1 for an entry with its own key.
    pub part: (u64, u64),
    /// `ts` if that is the sender's own time, which the line shows by `received`.
    pub time: Option<&'a str>,
    /// [`entry_content`].
    pub content: &'a str,
}

/// The part of a stored line that a sender gives to its entry and repeats with each attempt: level, text and fields,
/// and the name that it claims. The trace is not part of it, since an attempt may be a trace of its own.
///
/// `None` if the line is not an entry.
///
/// ```
/// use hubspoke_protocol::entry_content;
///
/// let line = r#"{"ts":"…","seq":7,"instance":"log-1","key":"k","client":"10.0.0.7","level":"warn","msg":"hot"}"#;
/// assert_eq!(entry_content(line), Some(r#","level":"warn","msg":"hot""#));
/// ```
pub fn entry_content(line: &str) -> Option<&str> {
    // JSON strings contain no raw quote, and only `fields`, the last key, nests. So up to `msg`, what looks like a key is
    // one.
    let msg = line.find(",\"msg\":")?;
    let keys = [",\"claimed\":", ",\"claimed_id\":", ",\"level\":"];
    let first = keys.iter().filter_map(|key| line[..msg].find(key)).min();
    line[first.unwrap_or(msg)..].trim_end().strip_suffix('}')
}

/// Recognizes the second copy of an entry, for readers that merge several log instances. Bounded: it remembers the last
/// entries, those of members apart, so that no stranger can make it forget them by sending many.
#[derive(Debug)]
pub struct CopyFilter {
    hash: KeyedHash,
    members: DedupWindow<u128>,
    clients: DedupWindow<u128>,
}

impl CopyFilter {
    /// A filter that remembers the last `capacity` entries of members, and as many of others.
    pub fn new(capacity: usize) -> Self {
        let window = || DedupWindow::new(capacity);
        Self { hash: KeyedHash::default(), members: window(), clients: window() }
    }

    /// How many entries it remembers now.
    pub fn len(&self) -> usize {
        self.members.len() + self.clients.len()
    }

    /// Whether it remembers no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this is the first copy.
    pub fn is_first(&mut self, entry: &EntryIdentity<'_>) -> bool {
        let seen = if entry.source.0.is_some() { &mut self.members } else { &mut self.clients };
        seen.insert(self.hash.of(entry), ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_entry_of_the_same_sender_is_a_copy() {
        let entry = EntryIdentity {
            source: (Some("visit"), Some("visit-1")),
            client: None,
            key: "k",
            part: (0, 2),
            time: None,
            content: ",\"msg\":\"a\"",
        };
        let others = [
            EntryIdentity { source: (Some("visit"), Some("visit-2")), ..entry },
            EntryIdentity { source: (Some("visit"), None), ..entry },
            EntryIdentity { source: (None, None), client: Some("visit"), ..entry },
            EntryIdentity { key: "k2", ..entry },
            EntryIdentity { part: (1, 2), ..entry },
            EntryIdentity { part: (0, 3), ..entry },
            EntryIdentity { time: Some("T"), ..entry },
            EntryIdentity { content: ",\"msg\":\"b\"", ..entry },
        ];
        let mut filter = CopyFilter::new(100);
        assert!(filter.is_first(&entry) && !filter.is_first(&entry));
        assert!(others.iter().all(|other| filter.is_first(other)));
        assert!(!others.iter().any(|other| filter.is_first(other)));
    }

    #[test]
    fn strangers_cannot_make_it_forget_members() {
        fn identity<'a>(source: Option<&'a str>, client: Option<&'a str>, key: &'a str) -> EntryIdentity<'a> {
            EntryIdentity {
                source: (source, None),
                client,
                key,
                part: (0, 1),
                time: None,
                content: ",\"msg\":\"a\"",
            }
        }
        let mut filter = CopyFilter::new(10);
        assert!(filter.is_first(&identity(Some("visit"), None, "k")));
        for n in 0..1_000 {
            assert!(filter.is_first(&identity(None, Some("10.6.6.6"), &n.to_string())));
        }
        assert_eq!(filter.len(), 11);
        assert!(!filter.is_first(&identity(Some("visit"), None, "k")));
    }

    #[test]
    fn the_content_is_what_the_sender_gives() {
        let content = |rest: &str| {
            let line = format!("{{\"ts\":\"T\",\"seq\":1,\"instance\":\"log-1\",\"key\":\"k\"{rest}");
            entry_content(&line).map(str::to_owned)
        };
        for (rest, expected) in [
            (r#","msg":"a"}"#, Some(r#","msg":"a""#)),
            (",\"source\":\"visit\",\"trace_id\":\"4b\",\"msg\":\"a\"}\n", Some(r#","msg":"a""#)),
            (
                r#","claimed_id":"c","level":"info","msg":"a"}"#,
                Some(r#","claimed_id":"c","level":"info","msg":"a""#),
            ),
            (
                r#","client":",\"msg\":","claimed":"c","msg":"a","fields":{"a":1,"level":2,"msg":3}}"#,
                Some(r#","claimed":"c","msg":"a","fields":{"a":1,"level":2,"msg":3}"#),
            ),
            (r#","level":"info"}"#, None),
            (r#","msg":"torn"#, None),
        ] {
            assert_eq!(content(rest).as_deref(), expected, "{rest}");
        }
        assert_eq!(entry_content(""), None);
    }
}
