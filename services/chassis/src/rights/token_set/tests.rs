use super::*;

const HASH_A: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const HASH_B: &str = "sha256:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752";

#[test]
fn a_line_is_read_as_it_is_written() {
    for line in [
        format!("shop-1 member shop cart expires=2027-02-24T00:00:00Z {HASH_A}"),
        format!(
            "shop-1 member shop host=shop.example host=www.shop.example expires=2027-02-24T00:00:00Z {HASH_A}"
        ),
        format!("ops operator {HASH_A}"),
        format!("ops operator expires=2027-02-24T00:00:00.5Z {HASH_A}"),
        format!("page reader {HASH_A}"),
    ] {
        assert_eq!(line.parse::<TokenEntry>().unwrap().to_string(), line);
    }
}

#[test]
fn a_token_is_found_by_its_hash_only() {
    let token = random_token();
    assert!(token.starts_with("hub_") && token.len() == 52 && token != random_token(), "{token}");
    let entry = TokenEntry {
        name: "shop".into(),
        role: Role::Operator,
        hosts: Vec::new(),
        expires: None,
        hash: hash_of(&token),
    };
    let set = TokenSet::parse(&format!("# tokens\n\n  {entry}\ntest reader {HASH_A}")).unwrap();
    assert_eq!(set.find(token.as_bytes()).map(|found| &**found), Some(&entry));
    assert_eq!(set.find(b"test").unwrap().name, "test", "SHA-256 of another implementation");
    for wrong in ["", "hub_", &token[1..], &format!("{token}0"), HASH_A] {
        assert_eq!(set.find(wrong.as_bytes()), None, "{wrong}");
    }
    assert_eq!(set.entries().iter().map(|entry| &*entry.name).collect::<Vec<_>>(), ["shop", "test"]);
}

#[test]
fn a_token_ends_at_its_time() {
    let entry: TokenEntry = format!("a reader expires=2027-02-24T00:00:00Z {HASH_A}").parse().unwrap();
    assert!(!entry.is_expired("2027-02-23T23:59:59Z".parse().unwrap()));
    assert!(entry.is_expired("2027-02-24T00:00:00Z".parse().unwrap()));
    let unlimited: TokenEntry = format!("a reader {HASH_A}").parse().unwrap();
    assert!(!unlimited.is_expired(Timestamp::MAX));
}

#[test]
fn an_invalid_file_is_refused_with_the_line() {
    let many = vec!["a"; MAX_NAMES + 1].join(" ");
    for (line, why) in [
        ("shop".to_owned(), "expected NAME ROLE"),
        (HASH_A.to_owned(), "expected NAME ROLE"),
        (format!("shop {HASH_A}"), "expected NAME ROLE"),
        (format!("shop member {HASH_A}"), "names the services"),
        (format!("shop member Shop {HASH_A}"), "Shop"),
        (format!("shop member livez {HASH_A}"), "reserved"),
        (format!("shop member {many} {HASH_A}"), "65 services"),
        (format!("Shop operator {HASH_A}"), "Shop"),
        (format!("ops operator shop {HASH_A}"), "only a member's"),
        (format!("ops operator host=shop.example {HASH_A}"), "only a member's token has hosts"),
        (format!("shop member shop host=127.1 {HASH_A}"), "\"127.1\" is not a valid host name"),
        (format!("shop member host=shop.example {HASH_A}"), "names the services"),
        (format!("shop member shop host=shop.example cart {HASH_A}"), "services come first"),
        (format!("ops admin {HASH_A}"), "\"admin\" is not a role"),
        (format!("ops operator expires=tomorrow {HASH_A}"), "\"tomorrow\" is not a time"),
        ("ops operator sha256:abc".to_owned(), "64 hexadecimal digits"),
        (format!("ops operator {}", HASH_A.replace('9', "+")), "64 hexadecimal digits"),
        ("ops operator hub_0123".to_owned(), "expected NAME ROLE"),
        (format!("ok reader {HASH_A}"), "another token named ok"),
        (format!("b reader {HASH_B}"), "the same hash"),
    ] {
        let error = TokenSet::parse(&format!("\nok reader {HASH_B}\n{line}")).unwrap_err().to_string();
        assert!(error.starts_with("line 3: ") && error.contains(why), "{line}: {error}");
    }
    assert!(TokenSet::parse("# nothing\n").unwrap().is_empty());
}
