//! The web page at `/`: a live view of the catalogue. Its files are part of the binary.
//!
//! The page is plain HTML, CSS and JavaScript from `page/`, with no build step and no external assets. It reads
//! `/services/watch` and the [`relay`] of the log, and changes nothing without the operator's token, which it keeps
//! in memory. Names, addresses and log entries are untrusted, so its content security policy allows only its own
//! scripts and its own origin, and forbids markup from strings.

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

pub(crate) use self::relay::RelayState;

pub(crate) mod relay;

/// The one trusted type is the URL of the page's worker.
const POLICY: &str = "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types worker";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Path, content type and content of every file.
const FILES: [(&str, &str, &str); 15] = [
    ("/", HTML, include_str!("../page/index.html")),
    ("/page/app.js", JS, include_str!("../page/app.js")),
    ("/page/channel.js", JS, include_str!("../page/channel.js")),
    ("/page/dom.js", JS, include_str!("../page/dom.js")),
    ("/page/events.js", JS, include_str!("../page/events.js")),
    ("/page/icon.svg", SVG, include_str!("../page/icon.svg")),
    ("/page/logtail.js", JS, include_str!("../page/logtail.js")),
    ("/page/model.js", JS, include_str!("../page/model.js")),
    ("/page/registries.js", JS, include_str!("../page/registries.js")),
    ("/page/services.js", JS, include_str!("../page/services.js")),
    ("/page/spokes.js", JS, include_str!("../page/spokes.js")),
    ("/page/stream.js", JS, include_str!("../page/stream.js")),
    ("/page/style.css", CSS, include_str!("../page/style.css")),
    ("/page/subscription.js", JS, include_str!("../page/subscription.js")),
    ("/page/worker.js", JS, include_str!("../page/worker.js")),
];

/// The routes of the page.
pub(crate) fn routes(relay: RelayState) -> Router {
    let files = FILES.into_iter().fold(Router::new(), |router, (path, kind, text)| {
        let tag = entity_tag(text);
        router.route(path, get(async move |headers: HeaderMap| file(&headers, kind, text, &tag)))
    });
    files.merge(relay::routes(relay))
}

/// The file, or 304 if the browser has it. `no-cache` lets it cache the file, but revalidate it each time.
fn file(request: &HeaderMap, kind: &'static str, text: &'static str, tag: &str) -> Response {
    let headers = [
        (header::ETAG, tag),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    if is_cached(request, tag) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, [(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Whether `If-None-Match` contains the tag (RFC 9110, 13.1.2).
fn is_cached(request: &HeaderMap, tag: &str) -> bool {
    let mut lists = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|list| list.to_str().ok());
    lists.any(|list| {
        list.split(',').map(str::trim).any(|cached| cached == "*" || cached.trim_start_matches("W/") == tag)
    })
}

/// The FNV-1a hash of the text.
fn entity_tag(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("\"{hash:016x}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn if_none_match(tags: &[&str]) -> HeaderMap {
        tags.iter().map(|tag| (header::IF_NONE_MATCH, tag.parse().unwrap())).collect()
    }

    #[test]
    fn a_cached_file_is_not_sent_again() {
        let tag = entity_tag("text");
        for cached in [&[tag.as_str()][..], &["*"], &["\"a\"", &format!("\"b\", W/{tag}")]] {
            let reply = file(&if_none_match(cached), HTML, "text", &tag);
            assert_eq!(reply.status(), StatusCode::NOT_MODIFIED, "{cached:?}");
            assert_eq!(reply.headers()[header::ETAG], tag);
        }
        for other in [&[][..], &["\"a\""], &["text"]] {
            assert_eq!(file(&if_none_match(other), HTML, "text", &tag).status(), StatusCode::OK, "{other:?}");
        }
    }

    #[test]
    fn every_file_is_served_under_its_name_and_refers_to_no_other_host() {
        for (path, kind, text) in FILES {
            let name = if path == "/" { "index.html" } else { path.trim_start_matches("/page/") };
            let on_disk =
                std::fs::read_to_string(format!("{}/page/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
            assert_eq!(on_disk, text, "{path}");
            let ending = name.rsplit_once('.').unwrap().1;
            let kinds = [("html", HTML), ("css", CSS), ("js", JS), ("svg", SVG)];
            assert!(kinds.contains(&(ending, kind)), "{path}: {kind}");
            let without_namespaces =
                text.replace("http://www.w3.org/2000/svg", "").replace("https://html.spec.whatwg.org/", "");
            assert!(!without_namespaces.contains("://"), "{path} refers to another host");
        }
        let count = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/page")).unwrap().count();
        assert_eq!(count, FILES.len(), "a file of page/ is not served");
    }

    #[test]
    fn no_script_makes_markup_from_strings() {
        for (path, _, text) in FILES {
            for sink in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "style=\"",
            ] {
                assert!(!text.contains(sink), "{path} uses {sink}");
            }
        }
    }
}
