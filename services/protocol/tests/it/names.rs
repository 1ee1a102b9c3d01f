//! Names and addresses.

use hubspoke_protocol::{check_addr, check_name};

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
        "", ":1", "h", "h:", "h:0", "h:65536", "h:+1", "h:-1", "::1:80", "[::1]", "[x]:1", "a b:1", "a/b:1",
        "a@b:1", &too_long,
    ] {
        assert!(check_addr(addr).is_err(), "{addr:?}");
    }
}
