//! `hub cert`: the files that it writes, and what it shows of them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384};

fn hub(folder: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hub"));
    command.args(line.split(' ')).current_dir(folder).env_clear().output().unwrap()
}

/// Both of a command that succeeds: results, remarks.
fn done(folder: &Path, line: &str) -> (String, String) {
    let output = hub(folder, line);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

fn stdout(folder: &Path, line: &str) -> String {
    done(folder, line).0
}

/// The one line of a command that fails.
fn error(folder: &Path, line: &str) -> String {
    let output = hub(folder, line);
    assert_eq!(output.status.code(), Some(1), "{line}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text.trim().to_owned()
}

fn read(folder: &Path, file: &str) -> String {
    std::fs::read_to_string(folder.join(file)).unwrap()
}

#[test]
fn a_ca_and_certificates_in_two_commands() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (made, next) = done(folder, "cert init --name Office");
    assert!(
        made.starts_with("certs/ca.crt: the CA \"Office\", until 20") && made.contains(" (in 3"),
        "{made}"
    );
    assert!(made.trim_end().ends_with(" days)") && made.lines().count() == 1, "{made}");
    assert_eq!(next, "hub: keep certs/ca.key secret; next: hub cert issue NAME…\n");
    let (made, next) = done(folder, "cert issue shop cart --host shop.example,10.0.0.5 --expires 90d");
    let lines: Vec<&str> = made.lines().collect();
    assert!(
        lines[0].starts_with("certs/cart/tls.crt: spiffe://hubspoke/cart, shop.example, 10.0.0.5, until")
    );
    assert!(
        lines[1].starts_with("certs/shop/tls.crt: spiffe://hubspoke/shop, ") && lines.len() == 2,
        "{made}"
    );
    assert_eq!(next, "hub: next: hub cert show certs/cart/tls.crt\n");
    let mode = |file: &str| folder.join(file).metadata().unwrap().permissions().mode() & 0o777;
    for (public, secret) in [("certs/ca.crt", "certs/ca.key"), ("certs/shop/tls.crt", "certs/shop/tls.key")] {
        assert_eq!((mode(public), mode(secret)), (0o644, 0o600));
    }
    assert_eq!(read(folder, "certs/shop/ca.crt"), read(folder, "certs/ca.crt"));
    let files: Vec<_> = std::fs::read_dir(folder.join("certs/shop")).unwrap().collect();
    assert_eq!(files.len(), 3, "no temporary file is left");
    let shown = stdout(folder, "cert show certs/shop");
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], "subject  shop");
    assert_eq!(lines[1], "names    spiffe://hubspoke/shop, shop.example, 10.0.0.5");
    assert_eq!(lines[2], "issuer   Office, in certs/shop/ca.crt");
    assert!(lines[3].starts_with("valid    from ") && lines[3].ends_with(" days)"), "{shown}");
    assert_eq!(lines[4], "key      ECDSA P-256, in certs/shop/tls.key");
    let made = stdout(folder, "cert issue --operator ada --reader eve");
    assert!(made.starts_with("certs/ada/tls.crt: spiffe://hubspoke/role/operator, until 20"), "{made}");
    assert!(made.contains("\ncerts/eve/tls.crt: spiffe://hubspoke/role/reader, until 20"), "{made}");
    assert!(
        stdout(folder, "cert show certs/ca.crt")
            .starts_with("subject  Office (a CA)\nissuer   Office (itself)\n")
    );
}

#[test]
fn nothing_is_replaced_without_being_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    stdout(folder, "cert init --dir c");
    stdout(folder, "cert issue shop --dir c");
    let before = (read(folder, "c/ca.key"), read(folder, "c/shop/tls.key"));
    assert_eq!(error(folder, "cert init --dir c"), "hub: c/ca.crt exists; to replace it, pass --force");
    let why = error(folder, "cert issue cart shop --dir c");
    assert_eq!(why, "hub: c/shop/tls.crt exists; to replace it, pass --renew or --force");
    assert!(!folder.join("c/cart").exists(), "none is made");
    assert_eq!(stdout(folder, "cert issue shop --dir c --renew"), "c/shop/tls.crt: nothing to do\n");
    assert_eq!((read(folder, "c/ca.key"), read(folder, "c/shop/tls.key")), before);
    stdout(folder, "cert issue shop --dir c --renew --host shop.example");
    assert_ne!(read(folder, "c/shop/tls.key"), before.1, "other names");
    let key = read(folder, "c/shop/tls.key");
    let made = stdout(folder, "cert issue shop --dir c --force");
    assert!(made.starts_with("c/shop/tls.crt: spiffe://hubspoke/shop, shop.example, until"), "{made}");
    assert_ne!(read(folder, "c/shop/tls.key"), key);
    assert_eq!(stdout(folder, "cert issue shop --dir c --renew"), "c/shop/tls.crt: nothing to do\n");
    stdout(folder, "cert show c/shop");
}

#[test]
fn a_new_ca_is_trusted_beside_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    stdout(folder, "cert issue shop --dir c --init");
    stdout(folder, "cert init --dir c/next");
    stdout(folder, "cert issue shop --dir c --ca c/next --renew");
    let both = read(folder, "c/ca.crt") + &read(folder, "c/next/ca.crt");
    assert_eq!(read(folder, "c/shop/ca.crt"), both);
    stdout(folder, "cert show c/shop");
    std::fs::copy(folder.join("c/ca.crt"), folder.join("c/shop/ca.crt")).unwrap();
    let why = error(folder, "cert show c/shop");
    assert_eq!(why, "hub: c/shop/tls.crt: is not signed by a CA in c/shop/ca.crt");
}

#[test]
fn a_file_that_cant_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    assert_eq!(
        error(folder, "cert issue shop"),
        "hub: there is no CA at certs/ca.crt; make one: hub cert init --dir certs"
    );
    stdout(folder, "cert init");
    stdout(folder, "cert issue shop");
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let cert = CertificateParams::new(vec!["shop.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    for (name, content) in [
        ("empty", Vec::new()),
        ("der", cert.der().to_vec()),
        ("text", b"hello".to_vec()),
        ("invalid", b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".to_vec()),
        ("cut", b"-----BEGIN CERTIFICATE-----\nMAA=\n".to_vec()),
        ("long", vec![b'a'; 300 << 10]),
        ("own.crt", cert.pem().into_bytes()),
    ] {
        std::fs::write(folder.join(name), content).unwrap();
    }
    for (file, why) in [
        ("missing", "can't read missing: No such file"),
        ("empty", "empty is empty"),
        ("der", "der is DER, not PEM; convert it: openssl x509 -inform der -in der -out FILE"),
        ("text", "text has no certificate in PEM (-----BEGIN CERTIFICATE-----)"),
        ("invalid", "invalid: an invalid certificate"),
        ("cut", "cut is not valid PEM"),
        ("long", "long is longer than 262144 bytes"),
        ("certs/shop/tls.key", "has a private key and no certificate"),
    ] {
        let error = error(folder, &format!("cert show {file}"));
        assert!(error.contains(why), "{file}: {error}");
    }
    assert!(stdout(folder, "cert show own.crt").ends_with("\nkey      ECDSA P-384\n"), "no key beside it");
    for (key, why) in [
        (read(folder, "certs/shop/tls.key"), "own.key is another key"),
        (key.serialize_pem().replace("PRIVATE", "ENCRYPTED PRIVATE"), "own.key is encrypted; decrypt it"),
        (String::new(), "own.key has no private key in PEM"),
    ] {
        std::fs::write(folder.join("own.key"), key).unwrap();
        let error = error(folder, "cert show own.crt");
        assert!(error.starts_with(&format!("hub: own.crt: {why}")), "{error}");
    }
    std::fs::write(folder.join("own.key"), key.serialize_pem()).unwrap();
    stdout(folder, "cert show own.crt");
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    std::fs::write(folder.join("own.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    assert_eq!(error(folder, "cert show own.crt"), "hub: own.crt: has expired");
    std::fs::write(folder.join("certs/ca.key"), read(folder, "certs/shop/tls.key")).unwrap();
    assert_eq!(error(folder, "cert issue cart"), "hub: certs/ca.key is not the key of certs/ca.crt");
}
