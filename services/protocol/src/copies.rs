//! Which stored entries are copies of one. Pure.
//!
//! A sender that gets no acknowledgement sends its entries again under the same key, perhaps to another log instance,
//! so one entry may be stored twice; or it asks for several copies in the first place. Anybody may use any key. So a key counts only together with its sender, and a
//! copy is one only if the content agrees too: otherwise whoever knows a key could hide another sender's entry.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, RandomState};

use serde::Deserialize;

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

/// The keys of a stored line that make up its identity.
#[derive(Deserialize)]
struct KeyedLine<'a> {
    #[serde(borrow)]
    ts: Cow<'a, str>,
    #[serde(borrow, default)]
    received: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    source: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    source_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    client: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(default)]
    part: u64,
    #[serde(default = "one")]
    of: u64,
}

fn one() -> u64 {
    1
}

/// Recognizes the second copy of an entry, for readers that merge several log instances. Bounded: it remembers the last
/// entries, those of members apart, so that no stranger can make it forget them by sending many.
#[derive(Debug)]
pub struct CopyFilter {
    hash: KeyedHash,
    members: RecentHashes,
    clients: RecentHashes,
}

impl CopyFilter {
    /// A filter that remembers the last `capacity` entries of members, and as many of others: at least, and at most
    /// twice as many, at some 10 bytes each.
    pub fn new(capacity: usize) -> Self {
        let recent = || RecentHashes { capacity, ..RecentHashes::default() };
        Self { hash: KeyedHash::default(), members: recent(), clients: recent() }
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
        // Half of the hash: that two of a million entries have the same one is as likely as a bit that flips unnoticed.
        let hash = (self.hash.of(entry) >> 64) as u64;
        if entry.source.0.is_some() { self.members.insert(hash) } else { self.clients.insert(hash) }
    }

    /// Whether a stored line is the first copy of its entry. A line without a key, or that is not an entry, has none.
    ///
    /// ```
    /// let mut filter = hubspoke_protocol::CopyFilter::new(100);
    /// let one = r#"{"ts":"T","seq":7,"instance":"log-1","key":"k","source":"visit","msg":"a"}"#;
    /// let two = r#"{"ts":"U","seq":3,"instance":"log-2","key":"k","source":"visit","msg":"a"}"#;
    /// assert!(filter.is_first_line(one) && !filter.is_first_line(two));
    /// assert!(filter.is_first_line(&two.replace("visit", "cart")), "another sender's");
    /// ```
    pub fn is_first_line(&mut self, line: &str) -> bool {
        if !line.contains(",\"key\":\"") {
            return true;
        }
        let Some((entry, content)) = serde_json::from_str::<KeyedLine>(line).ok().zip(entry_content(line))
        else {
            return true;
        };
        self.is_first(&EntryIdentity {
            source: (entry.source.as_deref(), entry.source_id.as_deref()),
            client: entry.client.as_deref(),
            key: &entry.key,
            part: (entry.part, entry.of),
            time: entry.received.as_ref().map(|_| &*entry.ts),
            content,
        })
    }
}

/// The hashes that were added last. Those before the last `capacity` are forgotten by and by.
#[derive(Debug, Default)]
struct RecentHashes {
    current: HashSet<u64>,
    previous: HashSet<u64>,
    capacity: usize,
}

impl RecentHashes {
    fn len(&self) -> usize {
        self.current.len() + self.previous.len()
    }

    /// Adds a hash. Returns whether it is new.
    fn insert(&mut self, hash: u64) -> bool {
        if self.current.contains(&hash) || self.previous.contains(&hash) {
            return false;
        }
        if self.current.len() >= self.capacity {
            std::mem::swap(&mut self.current, &mut self.previous);
            self.current.clear();
        }
        self.current.insert(hash)
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
    fn the_last_hashes_are_remembered_in_bounded_memory() {
        let mut recent = RecentHashes { capacity: 10, ..RecentHashes::default() };
        for hash in 0..1_000 {
            assert!(recent.insert(hash));
            assert!(recent.len() <= 20);
            assert!((hash.saturating_sub(10)..=hash).all(|last| !recent.insert(last)));
        }
        assert!(recent.insert(5), "forgotten");
    }

    #[test]
    fn a_line_is_judged_as_its_identity() {
        let line = |key: &str, time: &str, rest: &str| {
            format!(
                "{{\"ts\":\"T\",\"seq\":1{time},\"instance\":\"log-1\",\"key\":\"{key}\"{rest},\"msg\":\"a\"}}"
            )
        };
        let mut filter = CopyFilter::new(100);
        let received = ",\"received\":\"U\"";
        for (key, time, rest) in [
            ("k", "", ""),
            ("k2", "", ""),
            ("k", received, ""),
            ("k", "", ",\"part\":1,\"of\":2"),
            ("k", "", ",\"source\":\"visit\""),
            ("k", "", ",\"source\":\"visit\",\"source_id\":\"visit-1\""),
            ("k", "", ",\"client\":\"10.0.0.7\""),
            ("k", "", ",\"level\":\"info\""),
        ] {
            let line = line(key, time, rest);
            assert!(filter.is_first_line(&line) && !filter.is_first_line(&line), "{line}");
        }
        assert!(
            !filter.is_first_line(&line("k", "", ",\"trace_id\":\"4b\"")),
            "an attempt may be another trace"
        );
        for line in ["", "{\"ts\":\"T\",\"msg\":\"a\"}", "no entry,\"key\":\"k\""] {
            assert!(filter.is_first_line(line) && filter.is_first_line(line));
        }
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
        assert!((11..=21).contains(&filter.len()), "{}", filter.len());
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
