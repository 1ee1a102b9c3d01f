use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn authority(now: Timestamp) -> Authority {
    let pair = new_authority(&unique_name(), now, 100 * DAY).unwrap();
    parse(&pair.cert, &pair.key, now).unwrap()
}

fn parse(cert: &str, key: &str, now: Timestamp) -> anyhow::Result<Authority> {
    Authority::parse((Path::new("ca.crt"), cert.as_bytes()), (Path::new("ca.key"), key.as_bytes()), now)
}

fn names(identity: &str, hosts: &[&str]) -> CertNames {
    CertNames {
        subject: identity.to_owned(),
        identity: Some(identity.to_owned()),
        hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
    }
}

/// As a client of the server `host` judges a certificate, and as a server judges that of a client.
fn verify(authority: &Authority, cert: &str, host: &str, at: Timestamp) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.cert().clone()).unwrap();
    let (roots, provider) = (Arc::new(roots), Arc::new(default_provider()));
    let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
    let at = UnixTime::since_unix_epoch(Duration::from_secs(at.as_second().try_into().unwrap()));
    let host = ServerName::try_from(host).unwrap();
    let client =
        WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build().unwrap();
    client.verify_server_cert(&cert, &[], &host, &[], at)?;
    let server = WebPkiClientVerifier::builder_with_provider(roots, provider).build().unwrap();
    server.verify_client_cert(&cert, &[], at).map(drop)
}

#[test]
fn clients_and_servers_accept_what_the_authority_signs() {
    let now = Timestamp::now();
    let ca = authority(now);
    let names = names("shop", &["shop.example", "*.shop.example", "10.0.0.5", "[fd00::5]"]);
    let pair = ca.issue(&names, now, 10 * DAY).unwrap();
    for host in ["shop.example", "a.shop.example", "10.0.0.5", "fd00::5"] {
        verify(&ca, &pair.cert, host, now).unwrap();
    }
    verify(&ca, &pair.cert, "example", now).unwrap_err();
    verify(&ca, &pair.cert, "shop.example", now - DAY).unwrap_err();
    verify(&ca, &pair.cert, "shop.example", now + 11 * DAY).unwrap_err();
    verify(&authority(now), &pair.cert, "shop.example", now).unwrap_err();
    assert_eq!(pair.not_after.as_second(), (now + 10 * DAY).as_second());
    let cert = CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap();
    let details = Details::parse(&cert).unwrap();
    assert_eq!(
        details.names,
        ["spiffe://hubspoke/shop", "*.shop.example", "shop.example", "10.0.0.5", "fd00::5"]
    );
    assert_eq!((details.subject.as_str(), details.key.as_str()), ("shop", "ECDSA P-256"));
    assert!(!details.is_ca && is_signed_by(&cert, ca.cert()));
}

#[test]
fn no_certificate_outlives_its_authority() {
    let now = Timestamp::now();
    let pair = authority(now).issue(&names("shop", &[]), now, 1000 * DAY).unwrap();
    assert_eq!(pair.not_after.as_second(), (now + 100 * DAY).as_second());
}

#[test]
fn a_certificate_is_current_until_a_third_of_its_lifetime_is_left() {
    let now = Timestamp::now();
    let (ca, shop) = (authority(now), names("shop", &["shop.example"]));
    let pair = ca.issue(&shop, now, 30 * DAY).unwrap();
    let is_current = |ca: &Authority, names: &CertNames, key: &str, at: Timestamp| {
        ca.is_current(pair.cert.as_bytes(), key.as_bytes(), names, at)
    };
    assert!(is_current(&ca, &shop, &pair.key, now + 19 * DAY));
    assert!(!is_current(&ca, &shop, &pair.key, now + 20 * DAY));
    assert!(!is_current(&ca, &names("shop", &[]), &pair.key, now));
    assert!(!is_current(&ca, &shop, &ca.issue(&shop, now, DAY).unwrap().key, now), "another key");
    assert!(!is_current(&authority(now), &shop, &pair.key, now), "another authority");
    assert!(!is_current(&ca, &shop, "", now));
}

#[test]
fn an_authority_that_cant_sign_is_refused() {
    let now = Timestamp::now();
    let pair = new_authority("a", now, DAY).unwrap();
    let other = new_authority("a", now, DAY).unwrap();
    let error = |cert: &str, key: &str, at| format!("{:#}", parse(cert, key, at).err().unwrap());
    assert_eq!(error(&pair.cert, &other.key, now), "ca.key is not the key of ca.crt");
    assert!(error(&pair.cert, &pair.key, now + 2 * DAY).starts_with("ca.crt has expired on "));
    let leaf = parse(&pair.cert, &pair.key, now).unwrap().issue(&names("shop", &[]), now, DAY).unwrap();
    assert_eq!(error(&leaf.cert, &leaf.key, now), "ca.crt is not the certificate of a CA");
    assert!(error("", &pair.key, now).contains("ca.crt is empty"));
    assert!(error(&pair.cert, "x", now).contains("ca.key has no private key in PEM"));
    let bundle = format!("{}{}", pair.cert, other.cert);
    let ca = parse(&bundle, &pair.key, now).unwrap();
    assert_eq!(ca.pem(), pair.cert);
}

#[test]
fn impossible_lifetimes_are_refused() {
    for lifetime in [Duration::ZERO, Duration::MAX, 101 * 366 * DAY] {
        assert!(new_authority("a", Timestamp::now(), lifetime).is_err(), "{lifetime:?}");
    }
}

#[test]
fn hosts() {
    for (text, shown) in [
        ("Shop.Example", "shop.example"),
        ("*.shop.example", "*.shop.example"),
        ("10.0.0.1", "10.0.0.1"),
        ("[::1]", "::1"),
        ("localhost", "localhost"),
    ] {
        assert_eq!(text.parse::<Host>().unwrap().to_string(), shown);
    }
    for text in ["", "*", "*.", "*.localhost", "a b", "https://shop", "shop:443", "a.*.example"] {
        assert!(text.parse::<Host>().is_err(), "{text}");
    }
}
