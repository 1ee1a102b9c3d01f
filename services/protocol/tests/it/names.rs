//! Names and addresses.

use hubspoke_protocol::{check_addr, check_host, check_name};

#[test]
fn valid_and_invalid_names() {
    let longest = "a".repeat(63);
    for name in ["a", "0", "log", "log-2", "a--b", &longest] {
        assert_eq!(check_name(name), Ok(()), "{name:?}");
    }
    let too_long = "a".repeat(64);
    for name in ["", "-", "-a", "a-", "Log", "a_b", "a.b", "a/b", "é", " ", "*", &too_long] {
        assert!(check_name(name).is_err(), "{name:?}");
    }
}

#[test]
fn valid_and_invalid_addresses() {
    for addr in ["127.0.0.1:1", "localhost:65535", "log-0.log.hubspoke.svc:20002", "[::1]:80", "my_host:9"] {
        assert_eq!(check_addr(addr), Ok(()), "{addr:?}");
    }
    let too_long = format!("{}:1", "a".repeat(254));
    for addr in [
        "",
        ":1",
        "h",
        "h:",
        "h:0",
        "h:080",
        "h:65536",
        "h:+1",
        "h:-1",
        "::1:80",
        "[::1]",
        "[x]:1",
        "a b:1",
        "a/b:1",
        "a@b:1",
        "me@10.0.0.1:1",
        "a..b:1",
        ".:1",
        ".a:1",
        &too_long,
    ] {
        assert!(check_addr(addr).is_err(), "{addr:?}");
    }
}

#[test]
fn an_address_that_others_cannot_connect_to_is_refused_with_the_reason() {
    for (host, why) in [
        ("0.0.0.0", "every address of a machine"),
        ("0.1.2.3", "every address of a machine"),
        ("[::]", "every address of a machine"),
        ("[0:0::0]", "every address of a machine"),
        ("[::ffff:0.0.0.0]", "every address of a machine"),
        ("224.0.0.1", "multicast or broadcast"),
        ("239.255.255.250", "multicast or broadcast"),
        ("255.255.255.255", "multicast or broadcast"),
        ("[ff02::1]", "multicast or broadcast"),
        ("[::ffff:224.0.0.1]", "multicast or broadcast"),
        ("[fe80::1]", "link-local"),
        ("[fe80::1%eth0]", "link-local"),
        ("[fe80::1%25eth0]", "link-local"),
        ("0", "four decimal numbers"),
        ("127.1", "four decimal numbers"),
        ("127.0.0.01", "four decimal numbers"),
        ("0x7f.1", "four decimal numbers"),
        ("0x7f000001", "four decimal numbers"),
        ("2130706433", "four decimal numbers"),
        ("10.0.0.256", "four decimal numbers"),
        ("10.0.0.7.", "four decimal numbers"),
    ] {
        let error = check_addr(&format!("{host}:9000")).unwrap_err().to_string();
        assert!(error.contains("is not a valid address") && error.contains(why), "{host}: {error}");
        assert!(check_host(host).is_err(), "{host}");
    }
    let error = check_addr("fd00::5:20002").unwrap_err().to_string();
    assert!(error.contains("stands in brackets"), "{error}");
}

#[test]
fn an_address_that_others_can_connect_to_is_accepted() {
    for host in [
        "127.0.0.1",
        "localhost",
        "169.254.7.7",
        "240.0.0.1",
        "[::1]",
        "[fd00::5]",
        "[2001:db8::1]",
        "[::ffff:10.0.0.7]",
        "visit.default.svc.cluster.local.",
        "10-0-0-7.pod",
        "0x7g",
        "v1.2b",
    ] {
        assert_eq!(check_addr(&format!("{host}:9000")), Ok(()), "{host}");
        assert_eq!(check_host(host), Ok(()), "{host}");
    }
    assert_eq!(check_host("fd00::5"), Ok(()), "without brackets, as $(POD_IP) has it");
    assert!(check_host("::").is_err() && check_host("fe80::1").is_err() && check_host("").is_err());
}
