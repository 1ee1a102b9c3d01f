//! `/NAME` is redirected to `/NAME/`, so that relative links in the page lead below it. Pure.

use http::{HeaderValue, Uri};

/// Where a request for `/NAME` is redirected to; `None` for any other path.
pub(super) fn location(uri: &Uri) -> Option<HeaderValue> {
    let name = uri.path().strip_prefix('/').filter(|rest| !rest.is_empty() && !rest.contains('/'))?;
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    HeaderValue::try_from(format!("/{name}/{query}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_alone_is_redirected() {
        for (target, expected) in [
            ("/shop", Some("/shop/")),
            ("/shop?a=/b&c", Some("/shop/?a=/b&c")),
            ("http://hub.example/shop", Some("/shop/")),
            ("/shop/", None),
            ("/shop/a", None),
            ("/", None),
            ("//", None),
            ("//evil.example", None),
        ] {
            let location = location(&target.parse().unwrap());
            assert_eq!(location.as_ref().map(|value| value.to_str().unwrap()), expected, "{target}");
        }
    }
}
