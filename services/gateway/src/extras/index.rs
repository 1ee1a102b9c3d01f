//! The page at `/` that lists the public services. Pure.
//!
//! It has no script, no style and no form, and its policy allows none.

use std::fmt::Write as _;

use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Method, Response, StatusCode};

/// The most services on the page.
const MAX_SERVICES: usize = 1000;

/// A service on the page.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct IndexEntry {
    pub(crate) service: String,
    /// Instances that take requests.
    pub(crate) instances: usize,
    /// Its own hosts.
    pub(crate) hosts: Vec<String>,
}

/// The response with the page. `host`: the one that was asked for, if services have hosts below it.
pub(crate) fn response(
    method: &Method,
    mut entries: Vec<IndexEntry>,
    host: Option<&str>,
) -> Response<String> {
    let mut response = Response::new(String::new());
    let fields: &[(HeaderName, &'static str)] = match *method {
        Method::GET | Method::HEAD => {
            entries.sort();
            *response.body_mut() = page(&entries, host);
            &[
                (CONTENT_TYPE, "text/html; charset=utf-8"),
                (
                    CONTENT_SECURITY_POLICY,
                    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
                ),
                (X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (CACHE_CONTROL, "no-store"),
            ]
        }
        _ => {
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            &[(ALLOW, "GET, HEAD")]
        }
    };
    let fields = fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
    *response.headers_mut() = fields.collect::<HeaderMap>();
    response
}

fn page(entries: &[IndexEntry], host: Option<&str>) -> String {
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>Services</title>\n</head>\n<body>\n<h1>Services</h1>\n",
    );
    if entries.is_empty() {
        page += "<p>None is public at the moment.</p>\n";
    }
    page += "<ul>\n";
    for IndexEntry { service, instances, hosts } in entries.iter().take(MAX_SERVICES) {
        let name = escaped(service);
        let _ = write!(page, "<li><a href=\"/{name}/\">{name}</a>"); // writing to a text can't fail
        if let Some(host) = host {
            let host = escaped(&format!("{service}.{host}"));
            let _ = write!(page, ", <a href=\"//{host}/\">{host}</a>");
        }
        for host in hosts {
            let host = escaped(host);
            let _ = write!(page, ", <a href=\"//{host}/\">{host}</a>");
        }
        let _ = writeln!(page, " ({})</li>", count(*instances));
    }
    page += "</ul>\n";
    if let Some(more @ 1..) = entries.len().checked_sub(MAX_SERVICES) {
        let _ = writeln!(page, "<p>And {more} more.</p>");
    }
    page + "</body>\n</html>\n"
}

fn count(instances: usize) -> String {
    match instances {
        0 => "no instance".to_owned(),
        1 => "1 instance".to_owned(),
        n => format!("{n} instances"),
    }
}

/// Text that is safe in an element and in a quoted attribute.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(service: &str, hosts: &[&str]) -> IndexEntry {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        IndexEntry { service: service.to_owned(), instances: 1, hosts }
    }

    #[test]
    fn each_service_is_linked_by_its_path_and_its_hosts() {
        let response = response(
            &Method::GET,
            vec![entry("shop", &["shop.example"]), entry("cart", &[])],
            Some("localhost:20001"),
        );
        let page = response.body();
        for line in [
            "<li><a href=\"/cart/\">cart</a>, <a href=\"//cart.localhost:20001/\">cart.localhost:20001</a> (1 instance)</li>",
            "<a href=\"//shop.example/\">shop.example</a> (1 instance)</li>",
        ] {
            assert!(page.contains(line), "{page}");
        }
        assert!(page.find("cart") < page.find("shop"));
        assert!(
            response.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().starts_with("default-src 'none'")
        );
        assert!(!self::page(&[], None).contains("<li>"));
    }

    #[test]
    fn the_page_is_bounded_and_read_only() {
        let many = (0..5000).map(|n| entry(&format!("s{n}"), &[])).collect();
        let page = response(&Method::GET, many, None).into_body();
        assert!(page.matches("<li>").count() == MAX_SERVICES && page.contains("And 4000 more."));
        let refused = response(&Method::POST, vec![entry("a", &[])], None);
        assert_eq!(
            (refused.status().as_u16(), refused.body().len(), &refused.headers()[ALLOW]),
            (405, 0, &HeaderValue::from_static("GET, HEAD"))
        );
    }

    proptest! {
        #[test]
        fn no_name_becomes_markup(name in ".{0,30}", host in ".{0,30}") {
            let page = page(&[entry(&name, &[&host])], Some(&host));
            let plain = self::page(&[entry("a", &["b"])], Some("c"));
            for special in ['<', '>', '"', '\''] {
                prop_assert_eq!(page.matches(special).count(), plain.matches(special).count());
            }
        }
    }
}
