//! Which names are valid.

use std::fmt;

/// Longest service name, in bytes: a DNS label (RFC 1035), so that every name can be a host name too.
const MAX_NAME: usize = 63;
/// Most characters of an invalid value that an error repeats.
const MAX_QUOTED: usize = 100;

/// In `RequiredServices`: every service, present and future. An extension, for gateways.
pub const EVERY_SERVICE: &str = "*";

/// First path segments that every member serves itself. A service with such a name could have no routes of its
/// own, and gateways do not forward requests for these paths.
pub const RESERVED_NAMES: [&str; 6] = ["services", "heart-beat", "directory", "livez", "readyz", "metrics"];

/// The beginning of every name in a certificate, which is a URI: `spiffe://hubspoke/NAME` is a member of service `NAME`,
/// `spiffe://hubspoke/role/operator` and `spiffe://hubspoke/role/reader` have those roles.
pub const IDENTITY_DOMAIN: &str = "spiffe://hubspoke/";

/// The name that certificates of registries have.
pub const REGISTRY_SERVICE: &str = "registry";

/// The text is not a valid service name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidName(String);

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = "1 to 63 of a-z, 0-9 and -, not starting or ending with -";
        write!(f, "{:?} is not a valid service name: {rule}", self.0)
    }
}

impl std::error::Error for InvalidName {}

/// Checks a service name: `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`.
///
/// # Errors
/// [`InvalidName`], which quotes at most 100 characters of the name.
///
/// ```
/// use hubspoke_protocol::check_name;
///
/// assert!(check_name("log-2").is_ok());
/// assert!(check_name("Log").is_err());
/// ```
pub fn check_name(name: &str) -> Result<(), InvalidName> {
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let valid_ends = !name.starts_with('-') && !name.ends_with('-');
    if (1..=MAX_NAME).contains(&name.len()) && valid_ends && name.bytes().all(valid) {
        Ok(())
    } else {
        Err(InvalidName(quoted(name)))
    }
}

/// The beginning of an invalid value, for an error.
pub(crate) fn quoted(text: &str) -> String {
    text.chars().take(MAX_QUOTED).collect()
}
