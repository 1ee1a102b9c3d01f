//! The body of a registration, and what is odd about it. Unknown keys are ignored, since later versions may add some, but
//! they are named: a misspelt one would otherwise have no effect and show nowhere.

use std::fmt;

use hubspoke_chassis::{Json, Problem};
use hubspoke_protocol::ServiceInfo;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use crate::catalog::Warnings;

/// The keys of [`ServiceInfo`].
const KEYS: [&str; 10] = [
    "Name",
    "Addr",
    "RequiredServices",
    "Id",
    "ControlAddr",
    "Push",
    "PushKey",
    "Meta",
    "HostsSince",
    "State",
];
/// Most unknown keys that are named.
const MAX_NAMED: usize = 8;
/// Most characters of an unknown key that are repeated.
const MAX_KEY: usize = 64;
/// Keys that begin with as many equal letters are alike.
const LIKE: usize = 5;
/// Most characters in which a misspelt key differs from the one that was meant.
const MAX_TYPOS: usize = 2;

/// Parses a body.
///
/// # Errors
/// A problem about the body, with a hint if a key is misspelt.
pub(super) fn parse(body: &[u8]) -> Result<(ServiceInfo, Warnings), Problem> {
    let unknown = serde_json::from_slice::<UnknownKeys>(body).unwrap_or_default();
    match Json::parse(body) {
        Ok(info) => Ok((info, unknown.warnings())),
        Err(problem) => Err(match unknown.warnings() {
            Some(warnings) => problem.hint(&warnings.join(", ")),
            None => problem,
        }),
    }
}

/// The keys of a JSON object that a registration does not have.
#[derive(Debug, Default)]
struct UnknownKeys {
    /// The first ones.
    named: Vec<String>,
    count: usize,
}

impl UnknownKeys {
    fn warnings(&self) -> Warnings {
        if self.count == 0 {
            return None;
        }
        let mut warnings: Vec<_> = self.named.iter().map(|key| warning(key)).collect();
        let more = self.count - self.named.len();
        if more > 0 {
            warnings.push(format!("and {more} more unknown keys"));
        }
        Some(warnings.into())
    }
}

impl<'de> Deserialize<'de> for UnknownKeys {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = UnknownKeys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<UnknownKeys, M::Error> {
                let mut unknown = UnknownKeys::default();
                while let Some(UnknownKey(key)) = map.next_key()? {
                    map.next_value::<IgnoredAny>()?;
                    if let Some(key) = key {
                        unknown.count += 1;
                        if unknown.named.len() < MAX_NAMED {
                            unknown.named.push(key);
                        }
                    }
                }
                Ok(unknown)
            }
        }
        de.deserialize_map(Keys)
    }
}

/// A key, if it is unknown. Known ones are not copied.
struct UnknownKey(Option<String>);

impl<'de> Deserialize<'de> for UnknownKey {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        struct Key;
        impl Visitor<'_> for Key {
            type Value = UnknownKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E: Error>(self, key: &str) -> Result<UnknownKey, E> {
                let is_known = KEYS.contains(&key);
                Ok(UnknownKey((!is_known).then(|| key.chars().take(MAX_KEY).collect())))
            }
        }
        de.deserialize_str(Key)
    }
}

/// In visible ASCII characters, so that it may stand in a header and on a terminal.
fn warning(key: &str) -> String {
    let shown: String = key.escape_default().take(MAX_KEY).collect();
    match meant(key) {
        Some(known) => format!("unknown key {shown}; did you mean {known}?"),
        None => format!("unknown key {shown}"),
    }
}

/// The key that was probably meant.
fn meant(key: &str) -> Option<&'static str> {
    let plain = |text: &str| -> String {
        text.chars().filter(|c| c.is_ascii_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect()
    };
    let key = plain(key);
    let by_typos = KEYS.iter().map(|known| (distance(&key, &plain(known)), *known)).min();
    let is_near = |(typos, known): &(usize, &str)| *typos <= MAX_TYPOS && *typos < known.len().min(key.len());
    let is_like = |known: &&&str| {
        let known = plain(known);
        let contained =
            known.len().min(key.len()) > MAX_TYPOS && (known.contains(&key) || key.contains(&known));
        contained || key.get(..LIKE).is_some_and(|begin| known.starts_with(begin))
    };
    let by_typos = by_typos.filter(is_near).map(|(_, known)| known);
    by_typos.or_else(|| KEYS.iter().filter(is_like).max_by_key(|known| known.len()).copied())
}

/// The number of characters to add, remove or replace that makes one text the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(body: &str) -> Vec<String> {
        parse(body.as_bytes()).unwrap().1.unwrap_or_default().to_vec()
    }

    #[test]
    fn misspelt_keys_are_named_with_the_key_that_was_meant() {
        let with = |key: &str| warnings(&format!(r#"{{"Name":"a","Addr":"h:1","{key}":[]}}"#));
        for (key, known) in [
            ("RequiredService", "RequiredServices"),
            ("requiredservices", "RequiredServices"),
            ("required_services", "RequiredServices"),
            ("Requires", "RequiredServices"),
            ("Required", "RequiredServices"),
            ("Address", "Addr"),
            ("ServiceName", "Name"),
            ("ID", "Id"),
            ("ControlAddress", "ControlAddr"),
            ("Metadata", "Meta"),
            ("pushkey", "PushKey"),
        ] {
            assert_eq!(with(key), [format!("unknown key {key}; did you mean {known}?")]);
        }
        for key in ["Version", "x", "Zone", "Weight"] {
            assert_eq!(with(key), [format!("unknown key {key}")]);
        }
        let all = r#"{"Name":"a","Addr":"h:1","RequiredServices":null,"Id":null,"ControlAddr":null,"Push":null,
            "PushKey":null,"Meta":{"x":"y"},"HostsSince":{},"State":"suspect"}"#;
        assert_eq!(warnings(all), [""; 0]);
    }

    #[test]
    fn what_is_repeated_of_unknown_keys_is_short_and_visible_ascii() {
        let long = "k".repeat(10_000);
        let keys = format!(r#""{long}":1,"\u001b[2J\n":2,"schl\u00fcssel":3,"":4,"\"":5"#);
        let named = warnings(&format!(r#"{{"Name":"a","Addr":"h:1",{keys}}}"#));
        assert_eq!(named.len(), 5);
        for text in &named {
            assert!(text.len() < 150 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
        }
        let many: String = (0..500).map(|i| format!(r#","x{i}":{{}}"#)).collect();
        let named = warnings(&format!(r#"{{"Name":"a","Addr":"h:1"{many}}}"#));
        assert_eq!((named.len(), named[MAX_NAMED].as_str()), (MAX_NAMED + 1, "and 492 more unknown keys"));
    }

    #[test]
    fn a_missing_key_is_explained_by_a_misspelt_one() {
        let detail = |body: &str| parse(body.as_bytes()).unwrap_err().to_json();
        let missing = detail(r#"{"name":"a","Addr":"h:1"}"#);
        assert!(
            missing.contains("missing field `Name`") && missing.contains("did you mean Name?"),
            "{missing}"
        );
        assert!(!detail(r#"{"Name":"a"}"#).contains("did you mean"));
        assert!(!detail("{").contains("did you mean"));
    }
}
