//! Fields that report where a request came from: who the client is, which host and path it asked for. Pure.
//!
//! Every proxy and every content delivery network has its own, and instances believe whichever they know. So the gateway
//! takes all of them from a client that is not a trusted proxy, and reports the client in `X-Forwarded-*` alone. A
//! trusted proxy's are kept, except for names with `_` where others have `-`: CGI and WSGI take both for the same name,
//! and a proxy that overwrites `X-Real-IP` lets its client's `X_Real_IP` pass.

use http::HeaderName;

/// What a field reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Provenance {
    /// Nothing of the kind.
    None,
    /// Where the request came from; a trusted proxy may report it.
    Client,
    /// The same in a spelling that only an instance would take for it.
    ClientInDisguise,
    /// Which member sent the request: nobody outside the platform may report that.
    Member,
}

impl Provenance {
    /// Whether the field is removed. `trusted`: the client is a trusted proxy.
    pub(super) fn is_foreign(self, trusted: bool) -> bool {
        match self {
            Self::None => false,
            Self::Client => !trusted,
            Self::ClientInDisguise | Self::Member => true,
        }
    }
}

/// What a field of this name reports.
pub(super) fn of(name: &HeaderName) -> Provenance {
    let name = name.as_str().as_bytes();
    // By the first letters: this is asked for every field, and most are told apart by them.
    let (names, prefixes): (&[&str], &[&str]) = match name {
        [b'c', b'd' | b'f' | b'l', ..] => (
            &[
                "cdn-src-ip",
                "cf-connecting-ip",
                "cf-connecting-ipv6",
                "cf-pseudo-ipv4",
                "client-cert", // RFC 9440
                "client-cert-chain",
                "client-ip",
            ],
            &["cloudfront-viewer-"],
        ),
        [b'f', ..] => (
            &[
                "fastly-client-ip",
                "fly-client-ip",
                "fly-forwarded-port",
                "fly-forwarded-proto",
                "forwarded", // RFC 7239
                "forwarded-for",
                "front-end-https",
            ],
            &[],
        ),
        [b'h', b't', ..] => (&["http-client-ip"], &["http-forwarded", "http-x-forwarded"]),
        [b'h', b'u', ..] => {
            return if begins_with(name, "hub-") { Provenance::Member } else { Provenance::None };
        }
        [b'p', b'r', ..] => (&["proxy-client-ip"], &[]),
        [b'r', b'e', b'm', ..] => (&["remote-addr", "remote-host", "remote-user"], &[]),
        [b's', b's', ..] => (&[], &["ssl-client-"]),
        [b't', b'r', ..] => (&["true-client-ip"], &[]),
        [b'w', b'l', ..] => (&["wl-proxy-client-ip"], &[]),
        [b'x', b'-' | b'_', ..] => (
            &[
                "x-azure-clientip",
                "x-azure-socketip",
                "x-client-cert",
                "x-client-cert-chain",
                "x-client-dn",
                "x-client-ip",
                "x-client-verify",
                "x-cluster-client-ip",
                "x-forwarded",
                "x-host",
                "x-http-host-override",
                "x-nf-client-connection-ip",
                "x-originating-ip",
                "x-real-ip",
                "x-real-port",
                "x-rewrite-url",
                "x-scheme",
                "x-true-client-ip",
                "x-url-scheme",
                "x-vercel-forwarded-for",
                "x-vercel-proxied-for",
            ],
            &[
                "x-amzn-mtls-",
                "x-appengine-",
                "x-envoy-",
                "x-forwarded-",
                "x-original-",
                "x-remote-",
                "x-ssl-client-",
            ],
        ),
        _ => return Provenance::None,
    };
    let is_client = names.iter().any(|other| name.len() == other.len() && begins_with(name, other))
        || prefixes.iter().any(|prefix| begins_with(name, prefix));
    match is_client {
        false => Provenance::None,
        true if name.contains(&b'_') => Provenance::ClientInDisguise,
        true => Provenance::Client,
    }
}

/// Whether the name begins with `start`, `_` counting as `-`.
fn begins_with(name: &[u8], start: &str) -> bool {
    let Some(name) = name.get(..start.len()) else { return false };
    name.iter().zip(start.bytes()).all(|(&a, b)| a == b || (a == b'_' && b == b'-'))
}
