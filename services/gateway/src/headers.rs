//! Rewrites the header fields of requests, responses and trailers. Pure.
//!
//! Hop-by-hop fields, and those that `Connection` nominates, are removed in both directions (RFC 9110, 7.6.1).
//! `X-Forwarded-*`, `Via` and `traceparent` are added towards the instance, after the removal, so that a client can't
//! nominate them away. Other fields that report who the client is ([`provenance`]) are not written; they are removed
//! unless the client is a trusted proxy. `Hub-*` fields are for requests between members, and end here in any case.

use http::Version;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use hubspoke_http1::is_disguised_framing_field;

pub(crate) mod prefix;
mod provenance;

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
const CLIENT_CERT_CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
pub(crate) const HUB_INSTANCE: HeaderName = HeaderName::from_static(hubspoke_protocol::HUB_INSTANCE);

static HOP_BY_HOP: [HeaderName; 7] =
    [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE, KEEP_ALIVE, PROXY_CONNECTION, HTTP2_SETTINGS];

/// Where a request came from, as its fields will report it.
#[derive(Debug, Clone)]
pub(crate) struct Hop<'a> {
    /// The client's IP address.
    pub(crate) client: &'a HeaderValue,
    /// Whether the client is a trusted proxy, whose `X-Forwarded-*` are kept.
    pub(crate) trusted: bool,
    /// Whether the client connected with TLS.
    pub(crate) tls: bool,
    /// `Client-Cert`, if the client has shown a certificate. `None` if the gateway asks no client for one: a trusted proxy may
    /// send the field then.
    pub(crate) client_cert: Option<Option<&'a HeaderValue>>,
    /// Whether the connection could switch to another protocol: HTTP/1.1 alone can (RFC 9110, 7.8).
    pub(crate) may_upgrade: bool,
    /// The host that the request is for.
    pub(crate) host: Option<&'a HeaderValue>,
    /// The prefix that was removed from the path.
    pub(crate) prefix: Option<&'a HeaderValue>,
    /// This gateway's entry in `Via`, for this request's version.
    pub(crate) via: &'a HeaderValue,
}

/// The gateway's entry in `Via`, by the version of the request.
#[derive(Debug)]
pub(crate) struct ViaValues {
    pub(crate) pseudonym: String,
    v10: HeaderValue,
    v11: HeaderValue,
    v2: HeaderValue,
}

impl ViaValues {
    pub(crate) fn new(pseudonym: &str) -> Self {
        let via = |version: &str| {
            HeaderValue::from_str(&format!("{version} {pseudonym}"))
                .unwrap_or_else(|_| HeaderValue::from_static("1.1 gateway"))
        };
        Self { pseudonym: pseudonym.to_owned(), v10: via("1.0"), v11: via("1.1"), v2: via("2.0") }
    }

    pub(crate) fn of(&self, version: Version) -> &HeaderValue {
        match version {
            Version::HTTP_2 => &self.v2,
            Version::HTTP_10 => &self.v10,
            _ => &self.v11,
        }
    }
}

/// The hop-by-hop options of a request that the gateway acts on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HopOptions {
    /// The protocols that the client offers to switch to.
    pub(crate) upgrade: Option<HeaderValue>,
    /// `Expect: 100-continue`.
    pub(crate) expect_continue: bool,
}

/// Rewrites a request's fields for an instance that speaks HTTP/1. `trace` begins a trace if the request carries none.
pub(crate) fn request(
    headers: &mut HeaderMap,
    hop: &Hop<'_>,
    trace: impl FnOnce() -> HeaderValue,
) -> HopOptions {
    let found = FieldScan::scan(headers, hop.trusted);
    let mut options = HopOptions::default();
    if found.hop_by_hop {
        options.upgrade = offered_upgrade(headers).filter(|_| hop.may_upgrade);
        options.expect_continue =
            headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let trailers = headers.get_all(TE).iter().any(|value| has_token(value, "trailers"));
        remove_hop_by_hop(headers);
        headers.remove(EXPECT);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
            headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
        if let Some(protocol) = &options.upgrade {
            headers.insert(UPGRADE, protocol.clone());
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
    }
    if found.foreign_provenance {
        remove_matching(headers, |name| provenance::of(name).is_foreign(hop.trusted));
    }
    if found.cookies > 1 {
        join_cookies(headers);
    }
    set_forwarded(headers, hop);
    if let Some(cert) = hop.client_cert {
        headers.remove(CLIENT_CERT_CHAIN);
        match cert {
            Some(cert) => drop(headers.insert(CLIENT_CERT, cert.clone())),
            None => drop(headers.remove(CLIENT_CERT)),
        }
    }
    headers.append(VIA, hop.via.clone());
    // The client may have nominated the one that it sent.
    if !found.traced || !headers.contains_key(TRACEPARENT) {
        headers.insert(TRACEPARENT, trace());
    }
    options
}

/// Removes the fields that HTTP/2 forbids (RFC 9113, 8.2.2). An offer to switch protocols is among them: HTTP/2 has no
/// upgrades, and a server may ignore an offer (RFC 9110, 7.8).
pub(crate) fn for_h2(headers: &mut HeaderMap) {
    headers.remove(CONNECTION);
    headers.remove(UPGRADE);
    headers.remove(TRANSFER_ENCODING);
}

/// Rewrites a response's fields for the client. `switching`: it is a 101, which keeps its `Upgrade`.
pub(crate) fn response(headers: &mut HeaderMap, switching: bool) {
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    let upgrade = if switching { headers.get(UPGRADE).cloned() } else { None };
    if headers.contains_key(TRANSFER_ENCODING) {
        // The body was delimited by its chunks; the length may be wrong (RFC 9112, 6.3).
        headers.remove(CONTENT_LENGTH);
    }
    remove_hop_by_hop(headers);
    if let Some(upgrade) = upgrade {
        headers.insert(UPGRADE, upgrade);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Rewrites the fields of an interim response. Nothing frames it: it has no body.
pub(crate) fn interim(headers: &mut HeaderMap) {
    response(headers, false);
    headers.remove(CONTENT_LENGTH);
}

/// Removes trailers that frame or route a message or name its sender (RFC 9110, 6.5.1): some servers merge trailers
/// into the head's fields.
pub(crate) fn trailers(fields: &mut HeaderMap) {
    let ours = |name: &HeaderName| [HOST, CONTENT_LENGTH, VIA, TRACEPARENT].contains(name);
    let frames = |name: &HeaderName| is_hop_by_hop(name) || is_disguised_framing_field(name.as_str());
    remove_matching(fields, |name| frames(name) || provenance::of(name).is_foreign(false) || ours(name));
}

/// Whether only the gateway may set this field of a request.
pub(crate) fn is_gateways_own(name: &HeaderName) -> bool {
    let ours = [
        HOST,
        CONTENT_LENGTH,
        EXPECT,
        VIA,
        TRACEPARENT,
        X_FORWARDED_FOR,
        X_FORWARDED_HOST,
        X_FORWARDED_PREFIX,
        X_FORWARDED_PROTO,
    ];
    let name_is_framing = is_hop_by_hop(name) || is_disguised_framing_field(name.as_str());
    name_is_framing || ours.contains(name) || name.as_str().starts_with("hub-")
}

/// Whether this is gRPC, whose bodies may be streams.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    has_content_type(headers, b"application/grpc")
}

/// Whether the body is a stream of server-sent events.
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    has_content_type(headers, b"text/event-stream")
}

fn has_content_type(headers: &HeaderMap, start: &[u8]) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.as_bytes().get(..start.len()));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(start))
}

/// Whether the request has passed this gateway, known as `pseudonym`, before.
pub(crate) fn is_loop(headers: &HeaderMap, pseudonym: &str) -> bool {
    headers
        .get_all(VIA)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|entry| entry.split_ascii_whitespace().nth(1) == Some(pseudonym)))
}

/// The `traceparent` of a trace that begins here: version 00, sampled.
pub(crate) fn new_trace(trace: u128, span: u64) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
    // All-zero ids are invalid (W3C Trace Context, 3.2.2).
    let (mut trace, mut span) = (trace.max(1), span.max(1));
    // By hand: `format!` would cost a tenth of the gateway's own work on a request.
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

/// Which of the rarer steps a request needs, found in one pass over its names.
#[derive(Default)]
struct FieldScan {
    hop_by_hop: bool,
    foreign_provenance: bool,
    traced: bool,
    cookies: usize,
}

impl FieldScan {
    fn scan(headers: &HeaderMap, trusted: bool) -> Self {
        let mut found = Self::default();
        for (name, _) in headers {
            found.hop_by_hop |= is_hop_by_hop(name) || name == EXPECT;
            found.foreign_provenance |= provenance::of(name).is_foreign(trusted);
            found.traced |= name == TRACEPARENT;
            found.cookies += usize::from(name == COOKIE);
        }
        found
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    // As text, whose length is compared first: this runs for every field.
    matches!(
        name.as_str(),
        "te" | "upgrade"
            | "connection"
            | "keep-alive"
            | "http2-settings"
            | "proxy-connection"
            | "transfer-encoding"
    )
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // Nominating a field that frames or routes the request must not remove it.
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
    // A removal hashes the name, so look first: most are not there.
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

/// Whether the token is an option of `Connection` itself, or a field that is removed anyway.
fn names_no_field(token: &[u8]) -> bool {
    [&b"keep-alive"[..], b"close", b"upgrade", b"te"].iter().any(|option| token.eq_ignore_ascii_case(option))
}

/// The protocols that the client offers to switch to, without those that carry HTTP. Java's HttpClient offers `h2c` and
/// Apache's `TLS/1.2` in every request; if an instance agreed, the requests that follow would bypass all checks.
fn offered_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    if !headers.get_all(CONNECTION).iter().any(|value| has_token(value, "upgrade")) {
        return None;
    }
    let protocols: Vec<&[u8]> = headers
        .get_all(UPGRADE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&b| b == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|protocol| !protocol.is_empty() && !carries_http(protocol))
        .collect();
    if protocols.is_empty() { None } else { HeaderValue::from_bytes(&protocols.join(&b", "[..])).ok() }
}

/// Whether the protocol, of any version, is HTTP or TLS, within which HTTP goes on (RFC 2817).
fn carries_http(protocol: &[u8]) -> bool {
    let name = protocol.split(|&b| b == b'/').next().unwrap_or_default().trim_ascii();
    [&b"h2c"[..], b"h2", b"http", b"tls"].iter().any(|other| name.eq_ignore_ascii_case(other))
}

fn has_token(value: &HeaderValue, token: &str) -> bool {
    value.as_bytes().split(|&b| b == b',').any(|item| {
        let name = item.split(|&b| b == b';').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(token.as_bytes())
    })
}

fn remove_matching(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| unwanted(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Joins the fields into which HTTP/2 may split the cookie; HTTP/1 needs one (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

fn set_forwarded(headers: &mut HeaderMap, hop: &Hop<'_>) {
    if let Some(prefix) = hop.prefix {
        headers.insert(X_FORWARDED_PREFIX, prefix::report(headers.get(X_FORWARDED_PREFIX), prefix));
    }
    // A trusted proxy's list is continued; any other was removed.
    let before = hop.trusted && headers.contains_key(X_FORWARDED_FOR);
    let list = if before { appended(headers, hop.client) } else { hop.client.clone() };
    headers.insert(X_FORWARDED_FOR, list);
    if let (Some(host), false) = (hop.host, hop.trusted && headers.contains_key(X_FORWARDED_HOST)) {
        headers.insert(X_FORWARDED_HOST, host.clone());
    }
    if !(hop.trusted && headers.contains_key(X_FORWARDED_PROTO)) {
        // A proxy that terminates TLS in front of the gateway must be listed as trusted.
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(if hop.tls { "https" } else { "http" }));
    }
}

fn appended(headers: &HeaderMap, client: &HeaderValue) -> HeaderValue {
    let mut list: Vec<&[u8]> = headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
    list.push(client.as_bytes());
    HeaderValue::from_bytes(&list.join(&b", "[..])).unwrap_or_else(|_| client.clone())
}

#[cfg(test)]
mod tests;
