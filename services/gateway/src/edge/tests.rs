use http::Request;
use proptest::prelude::*;

use super::*;

fn hosts(version: Version, uri: &str, hosts: &[&str]) -> Result<Option<String>, BadHead> {
    let mut request = Request::builder().version(version).uri(uri);
    for host in hosts {
        request = request.header(HOST, *host);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let target = parts.uri.authority().cloned();
    let found = host(&parts, target.as_ref())?;
    Ok(found.map(|value| value.to_str().unwrap().to_owned()))
}

#[test]
fn a_request_needs_exactly_one_valid_host() {
    let one = |value| hosts(Version::HTTP_11, "/log", &[value]);
    for good in ["a", "example.org", "example.org:80", "127.0.0.1:20001", "[::1]", "[::1]:80", "a:", "x_y"] {
        assert_eq!(one(good), Ok(Some(good.to_owned())), "{good}");
    }
    let bad = [
        "", ":80", "a b", "a/b", "a,b:c", "user@a", "a:80:80", "a:x", "a:99999", "[::1", "[x]", "[::1]x",
        "a:+1",
    ];
    for bad in bad {
        assert_eq!(one(bad), Err(BadHead::HostSyntax), "{bad}");
    }
    assert_eq!(hosts(Version::HTTP_11, "/log", &[]), Err(BadHead::HostCount));
    assert_eq!(hosts(Version::HTTP_11, "/log", &["a", "a"]), Err(BadHead::HostCount));
    assert_eq!(hosts(Version::HTTP_10, "/log", &[]), Ok(None));
    assert_eq!(hosts(Version::HTTP_10, "/log", &["a", "b"]), Err(BadHead::HostCount));
}

#[test]
fn an_absolute_target_overrides_host_which_must_still_be_there() {
    assert_eq!(hosts(Version::HTTP_11, "http://b:1/log", &["a"]), Ok(Some("b:1".into())));
    assert_eq!(hosts(Version::HTTP_11, "http://b/log", &[]), Err(BadHead::HostCount));
}

#[test]
fn in_http2_authority_and_host_must_agree() {
    let h2 = |list: &[&str]| hosts(Version::HTTP_2, "http://example.org/log", list);
    assert_eq!(h2(&[]), Ok(Some("example.org".into())));
    assert_eq!(h2(&["Example.org"]), Ok(Some("example.org".into())));
    assert_eq!(h2(&["other.org"]), Err(BadHead::HostsDiffer));
    assert_eq!(hosts(Version::HTTP_2, "/log", &["a"]), Ok(Some("a".into())));
    assert_eq!(hosts(Version::HTTP_2, "/log", &[]), Err(BadHead::HostCount));
}

#[test]
fn connect_and_trace_are_refused() {
    assert_eq!(check_method(&Method::CONNECT), Err(BadHead::Method));
    assert_eq!(check_method(&Method::TRACE), Err(BadHead::Method));
    assert_eq!(check_method(&Method::from_bytes(b"PURGE").unwrap()), Ok(()));
}

proptest! {
    #[test]
    fn an_accepted_host_is_a_valid_authority(text in "\\PC{0,30}|[a-z0-9.:\\[\\]-]{0,12}") {
        if check_host(text.as_bytes()).is_ok() {
            prop_assert!(text.parse::<Authority>().is_ok(), "{text:?}");
            prop_assert!(!text.contains(['@', '/', '?', '#', ' ']));
        }
    }
}
