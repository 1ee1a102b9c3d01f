//! The content of a tokens file. Pure.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use hubspoke_protocol::{RESERVED_NAMES, check_name, is_host_name};
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

use super::role::Role;

/// Bytes of a hash.
const HASH: usize = 32;
/// Most names that one token is for.
const MAX_NAMES: usize = 64;
/// The prefix of every token, so that scanners for leaked secrets can find it.
const PREFIX: &str = "hub_";
const HASH_PREFIX: &str = "sha256:";
const HOST_PREFIX: &str = "host=";
const EXPIRES_PREFIX: &str = "expires=";

/// One token of a tokens file: `NAME ROLE [SERVICE…] [host=HOST…] [expires=TIME] sha256:HASH`.
///
/// ```
/// use hubspoke_chassis::rights::{Role, TokenEntry};
///
/// let hash = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
/// let entry: TokenEntry = format!("shop-1 member shop cart expires=2027-02-24T00:00:00Z {hash}").parse()?;
/// assert_eq!(entry.role, Role::Member(vec!["shop".to_owned(), "cart".to_owned()]));
/// let entry: TokenEntry = format!("shop-2 member shop host=shop.example.com {hash}").parse()?;
/// assert_eq!(entry.hosts, ["shop.example.com"]);
/// assert!(format!("ops operator {hash}").parse::<TokenEntry>().is_ok());
/// # Ok::<_, hubspoke_chassis::rights::InvalidTokens>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEntry {
    /// The name that people and log lines use.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// The hosts that its services may ask for, beside those that they have by their names; in lower case.
    pub hosts: Vec<String>,
    /// When it ends; `None` for never.
    pub expires: Option<Timestamp>,
    /// The SHA-256 of the token.
    pub hash: [u8; HASH],
}

/// A tokens file that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{why}", line.map(|line| format!("line {line}: ")).unwrap_or_default())]
pub struct InvalidTokens {
    line: Option<usize>,
    why: String,
}

impl InvalidTokens {
    fn new(why: impl Into<String>) -> Self {
        Self { line: None, why: why.into() }
    }
}

/// The tokens of a file.
#[derive(Debug, Default)]
pub struct TokenSet {
    /// By the first 8 bytes of their hashes.
    by_prefix: HashMap<[u8; 8], Arc<TokenEntry>>,
}

impl TokenSet {
    /// Parses a file. Empty lines and those that begin with `#` are ignored.
    ///
    /// # Errors
    /// [`InvalidTokens`] with the number of the line.
    pub fn parse(text: &str) -> Result<Self, InvalidTokens> {
        let (mut by_prefix, mut names) = (HashMap::new(), HashSet::new());
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = |error: InvalidTokens| InvalidTokens { line: Some(index + 1), ..error };
            let entry: TokenEntry = line.parse().map_err(at)?;
            if !names.insert(entry.name.clone()) {
                return Err(at(InvalidTokens::new(format!("there is another token named {}", entry.name))));
            }
            if by_prefix.insert(prefix(&entry.hash), Arc::new(entry)).is_some() {
                return Err(at(InvalidTokens::new("another line has the same hash")));
            }
        }
        Ok(Self { by_prefix })
    }

    /// Finds the entry of a token, expired or not. How long that takes depends on the token's hash only, which says
    /// nothing about the token; the hashes themselves are compared in constant time.
    pub fn find(&self, token: &[u8]) -> Option<&Arc<TokenEntry>> {
        let hash = sha256(token);
        self.by_prefix.get(&prefix(&hash)).filter(|entry| entry.hash.ct_eq(&hash).into())
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.by_prefix.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_prefix.is_empty()
    }

    /// The tokens, by name.
    pub fn entries(&self) -> Vec<&TokenEntry> {
        let mut entries: Vec<_> = self.by_prefix.values().map(|entry| &**entry).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries
    }
}

impl TokenEntry {
    /// Whether the token has ended.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

impl FromStr for TokenEntry {
    type Err = InvalidTokens;

    fn from_str(line: &str) -> Result<Self, InvalidTokens> {
        let form =
            || InvalidTokens::new("expected NAME ROLE [SERVICE…] [host=HOST…] [expires=TIME] sha256:HASH");
        let mut words: Vec<&str> = line.split_ascii_whitespace().collect();
        let hash = words.pop().and_then(|word| word.strip_prefix(HASH_PREFIX)).ok_or_else(form)?;
        let hash =
            parse_hash(hash).ok_or_else(|| InvalidTokens::new("the hash must be 64 hexadecimal digits"))?;
        let expires = words.last().and_then(|word| word.strip_prefix(EXPIRES_PREFIX));
        let expires = expires.map(|time| {
            let invalid =
                |_| InvalidTokens::new(format!("{time:?} is not a time such as 2027-02-24T00:00:00Z"));
            time.parse::<Timestamp>().map_err(invalid)
        });
        let expires = expires.transpose()?;
        words.truncate(words.len() - usize::from(expires.is_some()));
        let is_host = |word: &&str| word.starts_with(HOST_PREFIX);
        let first_host = words.iter().position(is_host).unwrap_or(words.len());
        let hosts = hosts_of(&words.split_off(first_host))?;
        let [name, role, services @ ..] = &*words else { return Err(form()) };
        check_name(name).map_err(|error| InvalidTokens::new(error.to_string()))?;
        let role = match (*role, services) {
            ("member", []) => {
                return Err(InvalidTokens::new("a member's token names the services that it is for"));
            }
            ("member", services) => Role::Member(services_of(services)?),
            ("operator", []) => Role::Operator,
            ("reader", []) => Role::Reader,
            ("operator" | "reader", _) => {
                return Err(InvalidTokens::new("only a member's token names services"));
            }
            _ => {
                return Err(InvalidTokens::new(format!(
                    "{role:?} is not a role: member, operator or reader"
                )));
            }
        };
        if !hosts.is_empty() && !matches!(role, Role::Member(_)) {
            return Err(InvalidTokens::new("only a member's token has hosts"));
        }
        Ok(Self { name: (*name).to_owned(), role, hosts, expires, hash })
    }
}

impl fmt::Display for TokenEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.role)?;
        for host in &self.hosts {
            write!(f, " {HOST_PREFIX}{host}")?;
        }
        if let Some(expires) = self.expires {
            write!(f, " {EXPIRES_PREFIX}{expires}")?;
        }
        write!(f, " {HASH_PREFIX}{}", hex(&self.hash))
    }
}

/// A new token: 192 random bits.
pub fn random_token() -> String {
    format!("{PREFIX}{}", hex(&rand::random::<[u8; 24]>()))
}

/// The hash of a token, for its [`TokenEntry`].
pub fn hash_of(token: &str) -> [u8; HASH] {
    sha256(token.as_bytes())
}

fn services_of(names: &[&str]) -> Result<Vec<String>, InvalidTokens> {
    if names.len() > MAX_NAMES {
        return Err(InvalidTokens::new(format!("{} services, at most {MAX_NAMES} are allowed", names.len())));
    }
    let checked = names.iter().map(|name| match check_name(name) {
        Err(error) => Err(InvalidTokens::new(error.to_string())),
        Ok(()) if RESERVED_NAMES.contains(name) => {
            Err(InvalidTokens::new(format!("{name:?} is reserved for the platform's own routes")))
        }
        Ok(()) => Ok((*name).to_owned()),
    });
    checked.collect()
}

fn hosts_of(words: &[&str]) -> Result<Vec<String>, InvalidTokens> {
    if words.len() > MAX_NAMES {
        return Err(InvalidTokens::new(format!("{} hosts, at most {MAX_NAMES} are allowed", words.len())));
    }
    let checked = words.iter().map(|word| match word.strip_prefix(HOST_PREFIX) {
        Some(host) if is_host_name(host) => Ok(host.to_ascii_lowercase()),
        Some(host) => Err(InvalidTokens::new(format!("{host:?} is not a valid host name"))),
        None => Err(InvalidTokens::new(format!("{word:?} follows a host; services come first"))),
    });
    checked.collect()
}

fn sha256(bytes: &[u8]) -> [u8; HASH] {
    let mut hash = [0; HASH];
    for (to, from) in hash.iter_mut().zip(digest(&SHA256, bytes).as_ref()) {
        *to = *from;
    }
    hash
}

fn prefix(hash: &[u8; HASH]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = *hash;
    [a, b, c, d, e, f, g, h]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse_hash(text: &str) -> Option<[u8; HASH]> {
    let mut hash = [0; HASH];
    if text.len() != 2 * HASH || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests;
