//! The URLs of registries.

use std::fmt;
use std::net::IpAddr;

use hubspoke_protocol::check_ip;

/// Most registries that a member may be given.
const MAX_REGISTRIES: usize = 16;

/// The base URLs of one or several registries, all of one platform: whichever answers is as good as any other.
///
/// ```
/// use hubspoke_client::membership::RegistryUrls;
///
/// let urls = RegistryUrls::parse("http://hub-1:20000, http://hub-2:20000/")?;
/// assert_eq!(urls.iter().collect::<Vec<_>>(), ["http://hub-1:20000", "http://hub-2:20000"]);
/// assert_eq!(urls.to_string(), "http://hub-1:20000, http://hub-2:20000");
/// assert!(RegistryUrls::parse("hub-1:20000").is_err());
/// # Ok::<(), hubspoke_client::membership::InvalidUrl>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryUrls(Vec<String>);

impl RegistryUrls {
    /// Reads URLs separated by commas, at most 16.
    ///
    /// # Errors
    /// [`InvalidUrl`] for the first that is not valid as in [`check_registry_url`].
    pub fn parse(text: &str) -> Result<Self, InvalidUrl> {
        let mut urls = Vec::new();
        for url in text.split(',').map(str::trim) {
            check_registry_url(url)?;
            let url = url.trim_end_matches('/').to_owned();
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        if urls.len() > MAX_REGISTRIES {
            return Err(InvalidUrl { text: text.to_owned(), why: "there are more than 16 registries" });
        }
        Ok(Self(urls))
    }

    /// Checks that the URLs begin with `https://` if the process has an identity, and with `http://` if it has none: what
    /// is sent must not depend on what was forgotten.
    ///
    /// # Errors
    /// [`InvalidUrl`] for the first that does not.
    pub fn check_tls(&self, has_identity: bool) -> Result<(), InvalidUrl> {
        let is_tls = |url: &&String| url.starts_with("https://");
        let why = match has_identity {
            true => "[tls] is set, so it must begin with https://",
            false => "https:// needs a certificate of this process: set cert, key and ca in [tls]",
        };
        match self.0.iter().find(|url| is_tls(url) != has_identity) {
            Some(text) => Err(InvalidUrl { text: text.clone(), why }),
            None => Ok(()),
        }
    }

    /// The URLs, without a slash at their ends. There is at least one.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl fmt::Display for RegistryUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// Checks the base URL of a registry: `http://host:port` or, for mutual TLS, `https://host:port`, optionally with a path. The host must be one that can be
/// connected to, as in [`check_ip`].
///
/// # Errors
/// [`InvalidUrl`], which quotes the text.
pub fn check_registry_url(text: &str) -> Result<(), InvalidUrl> {
    let invalid = |why| InvalidUrl { text: text.to_owned(), why };
    let url = reqwest::Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.port() != Some(0)
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    let url = url.ok_or_else(|| invalid("expected http://host:port"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    // The URL parser has turned every form of IPv4 into four decimal numbers.
    host.parse::<IpAddr>().map_or(Ok(()), |ip| check_ip(ip).map_err(invalid))
}

/// The text is not the base URL of a registry, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid URL; {why}")]
pub struct InvalidUrl {
    text: String,
    why: &'static str,
}
