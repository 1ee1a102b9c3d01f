//! What becomes of header fields on their way through. Pure.
//!
//! Hop-by-hop fields, and those that `Connection` nominates, end here in both directions (RFC 9110, 7.6.1);
//! `X-Forwarded-*`, `Via` and `traceparent` are added towards the instance. A client may nominate whatever it likes:
//! what the gateway itself says is added afterwards. Left out: `Forwarded` (RFC 7239), which is removed where the
//! peer isn't trusted, and not written.

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName,
    HeaderValue, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
pub(crate) const HUB_INSTANCE: HeaderName = HeaderName::from_static(hubspoke_protocol::HUB_INSTANCE);
const HUB_SOURCE: HeaderName = HeaderName::from_static(hubspoke_protocol::HUB_SOURCE);

static HOP_BY_HOP: [HeaderName; 7] =
    [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE, KEEP_ALIVE, PROXY_CONNECTION, HTTP2_SETTINGS];

const FORWARDED_PREFIX: &str = "x-forwarded-";

/// What the gateway knows of the way that a request came.
#[derive(Debug, Clone)]
pub(crate) struct Hop<'a> {
    /// The peer's address, as text.
    pub(crate) peer: &'a HeaderValue,
    /// Whether the peer is another proxy of ours, whose `X-Forwarded-*` are to be believed.
    pub(crate) trusted: bool,
    /// The host that the request is for.
    pub(crate) host: Option<&'a HeaderValue>,
    /// This gateway's entry in `Via`, for this request's version.
    pub(crate) via: &'a HeaderValue,
}

/// What a request's hop-by-hop fields asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The protocol that the client wants to switch to.
    pub(crate) upgrade: Option<HeaderValue>,
    /// `Expect: 100-continue`.
    pub(crate) expect_continue: bool,
}

/// Makes a request's fields ready for an instance that speaks HTTP/1. `trace` begins a trace where the request brings none.
pub(crate) fn request(headers: &mut HeaderMap, hop: &Hop<'_>, trace: impl FnOnce() -> HeaderValue) -> Asked {
    let found = Found::scan(headers, hop.trusted);
    let mut asked = Asked::default();
    if found.hop_by_hop {
        asked.upgrade = upgrade_asked(headers);
        asked.expect_continue =
            headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let trailers = headers.get_all(TE).iter().any(|value| has_token(value, "trailers"));
        remove_hop_by_hop(headers);
        headers.remove(EXPECT);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
            headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
        if let Some(protocol) = &asked.upgrade {
            headers.insert(UPGRADE, protocol.clone());
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
    }
    if found.to_forget {
        remove_where(headers, is_hearsay);
    }
    if found.cookies > 1 {
        join_cookies(headers);
    }
    forwarded(headers, hop);
    headers.append(VIA, hop.via.clone());
    if !found.traced {
        headers.insert(TRACEPARENT, trace());
    }
    asked
}

/// Takes out what only HTTP/1 may say of a connection.
pub(crate) fn for_h2(headers: &mut HeaderMap) {
    headers.remove(CONNECTION);
    headers.remove(UPGRADE);
    headers.remove(TRANSFER_ENCODING);
}

/// Makes a reply's fields ready for the client. A reply that switches protocols keeps saying so.
pub(crate) fn reply(headers: &mut HeaderMap, switching: bool) {
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    let upgrade = if switching { headers.get(UPGRADE).cloned() } else { None };
    if headers.contains_key(TRANSFER_ENCODING) {
        // The length of something else than the body that was read (RFC 9112, 6.3).
        headers.remove(CONTENT_LENGTH);
    }
    remove_hop_by_hop(headers);
    if let Some(upgrade) = upgrade {
        headers.insert(UPGRADE, upgrade);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Makes fields behind a body ready for whoever is next. Many a server adds them to those of the head: what frames or
/// routes a message, or says who sent it, is no trailer (RFC 9110, 6.5.1).
pub(crate) fn trailers(fields: &mut HeaderMap) {
    let ours = |name: &HeaderName| [HOST, CONTENT_LENGTH, VIA, TRACEPARENT].contains(name);
    remove_where(fields, |name| is_hop_by_hop(name) || is_hearsay(name) || ours(name));
}

/// Whether this is gRPC, whose bodies are streams.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).and_then(|kind| kind.get(..GRPC.len()));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(GRPC))
}

/// Whether this gateway, known as `pseudonym`, has already seen the request.
pub(crate) fn is_loop(headers: &HeaderMap, pseudonym: &str) -> bool {
    headers
        .get_all(VIA)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|entry| entry.split_ascii_whitespace().nth(1) == Some(pseudonym)))
}

/// `traceparent` of a trace that begins here: version 00, sampled.
pub(crate) fn new_trace(trace: u128, span: u64) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
    // All-zero ids are invalid (W3C Trace Context, 3.2.2).
    let (mut trace, mut span) = (trace.max(1), span.max(1));
    // By hand, since formatting would cost a tenth of what the gateway itself does for a request.
    for digit in text[3..35].iter_mut().rev() {
        *digit = DIGITS[(trace & 15) as usize];
        trace >>= 4;
    }
    for digit in text[36..52].iter_mut().rev() {
        *digit = DIGITS[(span & 15) as usize];
        span >>= 4;
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// One pass over the names says which of the rarer steps are needed at all.
#[derive(Default)]
struct Found {
    hop_by_hop: bool,
    to_forget: bool,
    traced: bool,
    cookies: usize,
}

impl Found {
    fn scan(headers: &HeaderMap, trusted: bool) -> Self {
        let mut found = Self::default();
        for (name, _) in headers {
            found.hop_by_hop |= is_hop_by_hop(name) || name == EXPECT;
            found.to_forget |= !trusted && is_hearsay(name);
            found.traced |= name == TRACEPARENT;
            found.cookies += usize::from(name == COOKIE);
        }
        found
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    // Told apart by their lengths first: this is asked of every field.
    matches!(name.as_str().len(), 2 | 7 | 10 | 14 | 16 | 17) && HOP_BY_HOP.contains(name)
}

/// What only a trusted peer may say: where the request came from, and who of the members sent it.
fn is_hearsay(name: &HeaderName) -> bool {
    if name == FORWARDED || name == HUB_SOURCE {
        return true;
    }
    let text = name.as_str();
    // To CGI and its heirs `x_forwarded_for` is the same as `x-forwarded-for`.
    let start = text.bytes().map(|b| if b == b'_' { b'-' } else { b });
    text.starts_with('x') && start.take(FORWARDED_PREFIX.len()).eq(FORWARDED_PREFIX.bytes())
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // Framing is ours to say: nominating it must not take it away.
    let ours = |name: &HeaderName| *name == HOST || *name == CONTENT_LENGTH;
    let nominated: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&b| b == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|token| !names_no_field(token))
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| !ours(name))
        .collect();
    for name in nominated {
        headers.remove(name);
    }
    // Looking is cheaper than removing what is not there: a removal hashes the name.
    let mut present = [false; HOP_BY_HOP.len()];
    for name in headers.keys() {
        if let Some(at) = HOP_BY_HOP.iter().position(|known| known == name) {
            present[at] = true;
        }
    }
    for (name, _) in HOP_BY_HOP.iter().zip(present).filter(|(_, present)| *present) {
        headers.remove(name);
    }
}

/// Options of `Connection` that stand for themselves or are removed anyway.
fn names_no_field(token: &[u8]) -> bool {
    [&b"keep-alive"[..], b"close", b"upgrade", b"te"].iter().any(|option| token.eq_ignore_ascii_case(option))
}

/// What the client would rather speak. HTTP/2 is not among it: Java's client asks for it as a matter of course, an
/// instance that agreed would get requests that nobody has checked, and who speaks it here begins with it.
fn upgrade_asked(headers: &HeaderMap) -> Option<HeaderValue> {
    if !headers.get_all(CONNECTION).iter().any(|value| has_token(value, "upgrade")) {
        return None;
    }
    let protocols: Vec<&[u8]> = headers
        .get_all(UPGRADE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&b| b == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|protocol| !protocol.is_empty() && !protocol.eq_ignore_ascii_case(b"h2c"))
        .collect();
    if protocols.is_empty() { None } else { HeaderValue::from_bytes(&protocols.join(&b", "[..])).ok() }
}

fn has_token(value: &HeaderValue, token: &str) -> bool {
    let name = |item: &[u8]| item.split(|&b| b == b';').next().unwrap_or_default().trim_ascii().to_vec();
    value.as_bytes().split(|&b| b == b',').any(|item| name(item).eq_ignore_ascii_case(token.as_bytes()))
}

fn remove_where(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| unwanted(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// HTTP/2 may split the cookie into many fields; HTTP/1 must have one (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

fn forwarded(headers: &mut HeaderMap, hop: &Hop<'_>) {
    // An untrusted peer's were removed; a trusted peer's are kept, and it is added to the list.
    let before = hop.trusted && headers.contains_key(X_FORWARDED_FOR);
    let list = if before { appended(headers, hop.peer) } else { hop.peer.clone() };
    headers.insert(X_FORWARDED_FOR, list);
    if let (Some(host), false) = (hop.host, hop.trusted && headers.contains_key(X_FORWARDED_HOST)) {
        headers.insert(X_FORWARDED_HOST, host.clone());
    }
    if !(hop.trusted && headers.contains_key(X_FORWARDED_PROTO)) {
        // TLS ends in front of the gateway, at a proxy that is trusted then.
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
}

fn appended(headers: &HeaderMap, peer: &HeaderValue) -> HeaderValue {
    let mut list: Vec<&[u8]> = headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
    list.push(peer.as_bytes());
    HeaderValue::from_bytes(&list.join(&b", "[..])).unwrap_or_else(|_| peer.clone())
}

#[cfg(test)]
mod tests;
