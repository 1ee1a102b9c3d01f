use axum::http::{Request, Version};

use super::*;
use crate::config::{Common, Process};

fn rule(allowed: &[&str], routed: bool) -> SiteRule {
    let mut common = Common::of(&Process::new("registry", "0")).unwrap();
    common.advertise = Some("visit.inner:20003".to_owned());
    common.registry.url = "http://hub.inner:20000/".to_owned();
    common.allowed_hosts = allowed.iter().map(|&host| host.to_owned()).collect();
    SiteRule::new(KnownHosts::new(&common), routed)
}

fn request(method: &str, fields: &[(&str, &str)]) -> Request<()> {
    let builder = Request::builder().method(method).uri("/services");
    fields.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value)).body(()).unwrap()
}

#[test]
fn a_service_answers_to_its_own_names_only() {
    let rule = rule(&["hub.example", "*.lan", "[fd00::7]"], false);
    let check = |host: &str| rule.check(&request("GET", &[("host", host)]));
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for host in [
        "127.0.0.1:20000",
        "10.0.0.7",
        "[::1]:20000",
        "[fd00::5]",
        "localhost:20000",
        "LOCALHOST",
        "a.localhost",
        "registry:20000",
        "Registry.",
        "registry.hubspoke.svc",
        "registry.hubspoke.svc.cluster.local.:20000",
        "visit.inner",
        "hub.inner:20000",
        "host.docker.internal:20000",
        "hub.example",
        "HUB.example.:1",
        "a.b.lan",
        &machine,
    ] {
        assert_eq!(check(host), Ok(()), "{host}");
    }
    for host in [
        "evil.example:20000",
        "registry.evil.example",
        "localhost.evil.example",
        "notlocalhost",
        "127.0.0.1.evil.example",
        "127.0.0.1.nip.io",
        "svc",
        "hub.example.evil",
        "xhub.example",
        "lan",
        "0x7f.1",
        "evil",
        "registry.svc.evil.example",
        "host.docker.internal.evil.example",
    ] {
        assert_eq!(check(host), Err(SiteError::UnknownHost(host.to_owned())), "{host}");
    }
    assert_eq!(self::rule(&["*"], false).check(&request("GET", &[("host", "any.example")])), Ok(()));
}

#[test]
fn a_request_has_exactly_one_valid_host() {
    let rule = rule(&[], false);
    let of = |version, uri: &str, hosts: &[&str]| {
        let builder = Request::builder().version(version).uri(uri);
        rule.check(
            &hosts.iter().fold(builder, |builder, host| builder.header("host", *host)).body(()).unwrap(),
        )
    };
    use SiteError::{HostCount, HostSyntax, HostsDiffer};
    let unknown = |host: &str| Err(SiteError::UnknownHost(host.to_owned()));
    for (version, uri, hosts, expected) in [
        (Version::HTTP_11, "/", &["localhost"][..], Ok(())),
        (Version::HTTP_11, "/", &[], Err(HostCount)),
        (Version::HTTP_11, "/", &["localhost", "localhost"], Err(HostCount)),
        (Version::HTTP_10, "/", &[], Ok(())),
        (Version::HTTP_10, "/", &["localhost", "localhost"], Err(HostCount)),
        (Version::HTTP_10, "/", &["evil.example"], unknown("evil.example")),
        (Version::HTTP_11, "http://localhost:1/", &["evil.example"], Ok(())),
        (Version::HTTP_11, "http://evil.example/", &["localhost"], unknown("evil.example")),
        (Version::HTTP_11, "http://localhost/", &[], Err(HostCount)),
        (Version::HTTP_11, "http://localhost/", &["a b"], Err(HostSyntax)),
        (Version::HTTP_11, "http://user@localhost/", &["localhost"], Err(HostSyntax)),
        (Version::HTTP_11, "localhost", &["localhost"], Err(SiteError::Target)),
        (Version::HTTP_2, "http://localhost/", &[], Ok(())),
        (Version::HTTP_2, "http://localhost/", &["localhost"], Ok(())),
        (Version::HTTP_2, "http://localhost/", &["127.0.0.1"], Err(HostsDiffer)),
        (Version::HTTP_2, "http://evil.example/", &[], unknown("evil.example")),
        (Version::HTTP_2, "/", &["localhost"], Ok(())),
        (Version::HTTP_2, "/", &[], Err(HostCount)),
    ] {
        assert_eq!(of(version, uri, hosts), expected, "{version:?} {uri} {hosts:?}");
    }
    for host in [
        "",
        ":80",
        "a b",
        "user@localhost",
        "localhost:x",
        "localhost:65536",
        "a/b",
        "a,b\u{e9}",
        "[::1",
        "[1]",
    ] {
        assert!(
            matches!(of(Version::HTTP_11, "/", &[host]), Err(HostSyntax | SiteError::UnknownHost(_))),
            "{host:?}"
        );
    }
    for host in ["localhost:", "[::1]:"] {
        assert_eq!(of(Version::HTTP_11, "/", &[host]), Ok(()), "{host:?}");
    }
}

const HOST: (&str, &str) = ("host", "127.0.0.1:20000");

#[test]
fn requests_of_other_sites_pages_are_refused() {
    let rule = rule(&[], false);
    for method in ["GET", "POST", "OPTIONS"] {
        for same_site in [
            &[HOST][..],
            &[HOST, ("origin", "http://127.0.0.1:20000")],
            &[HOST, ("sec-fetch-site", "same-origin"), ("origin", "https://behind.a.proxy")],
            &[HOST, ("sec-fetch-site", "none")],
        ] {
            assert_eq!(rule.check(&request(method, same_site)), Ok(()), "{method} {same_site:?}");
        }
        for cross_site in [
            &[HOST, ("origin", "http://evil.example")][..],
            &[HOST, ("origin", "http://127.0.0.1:20001")],
            &[HOST, ("origin", "http://127.0.0.1")],
            &[HOST, ("origin", "null")],
            &[HOST, ("origin", "")],
            &[HOST, ("origin", "http://127.0.0.1:20000"), ("origin", "http://evil.example")],
            &[HOST, ("sec-fetch-site", "cross-site")],
            &[HOST, ("sec-fetch-site", "cross-site"), ("origin", "http://127.0.0.1:20000")],
            &[HOST, ("sec-fetch-site", "same-site"), ("origin", "http://127.0.0.1:20001")],
            &[HOST, ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
            &[HOST, ("sec-fetch-site", "")],
            &[
                HOST,
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "no-cors"),
                ("sec-fetch-dest", "image"),
            ],
            &[
                HOST,
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", "iframe"),
            ],
        ] {
            let refused = rule.check(&request(method, cross_site));
            assert_eq!(refused, Err(SiteError::CrossSite), "{method} {cross_site:?}");
        }
    }
}

#[test]
fn links_to_a_service_work() {
    let link = [
        HOST,
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
    ];
    assert_eq!(rule(&[], false).check(&request("GET", &link)), Ok(()));
    let form = rule(&[], false).check(&request("POST", &link));
    assert_eq!(form, Err(SiteError::CrossSite), "a form of another site");
}

#[test]
fn what_comes_through_a_gateway_is_the_services_own_affair() {
    let public = [
        ("host", "shop.example"),
        ("via", "1.1 gateway-0123456789abcdef"),
        ("origin", "http://other.example"),
    ];
    assert_eq!(rule(&[], true).check(&request("GET", &public)), Ok(()));
    assert!(rule(&[], false).check(&request("GET", &public)).is_err(), "control routes are never routed to");
    assert!(rule(&[], true).check(&request("GET", &public[..1])).is_err(), "not through a gateway");
    // A handler can refuse such pages by itself.
    let check = |fields: &[(&str, &str)]| check_same_site(&request("POST", fields).into_parts().0);
    assert_eq!(check(&public), Err(SiteError::CrossSite));
    assert_eq!(check(&public[..2]), Ok(()));
    assert_eq!(check(&[public[0], public[1], ("origin", "https://shop.example")]), Ok(()));
}
