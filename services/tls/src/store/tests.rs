use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, date_time_ymd};

use super::*;
use crate::cert::validity;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn files(&self, name: &str) -> CertFiles {
        CertFiles {
            cert: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
            may_be_missing: false,
        }
    }

    /// Writes a certificate for these names.
    fn issue(&self, file: &str, names: &[&str], years: (i32, i32)) -> CertFiles {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
        let files = self.files(file);
        std::fs::write(&files.cert, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}

const VALID: (i32, i32) = (2020, 2090);

fn chosen(store: &CertStore, name: &str) -> Vec<u8> {
    let set = store.current.get();
    set.find(name).or(set.default.as_ref()).unwrap().cert[0].to_vec()
}

fn der(files: &CertFiles) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::CertificateDer::from_pem_file(&files.cert).unwrap().to_vec()
}

#[test]
fn a_certificate_is_chosen_by_name_and_the_first_is_the_default() {
    let folder = Folder::new();
    let a = folder.issue("a", &["a.example", "*.shop.example"], VALID);
    let b = folder.issue("b", &["b.example", "a.example"], (2020, 2080));
    let store = CertStore::open(vec![a.clone(), b.clone()], None).unwrap();
    for (name, files) in [
        ("a.example", &a),
        ("b.example", &b),
        ("x.shop.example", &a),
        ("y.x.shop.example", &a),
        ("shop.example", &a),
        ("unknown.example", &a),
    ] {
        assert_eq!(chosen(&store, name), der(files), "{name}");
    }
    assert_eq!(store.expires().unwrap(), date_time_ymd(2080, 1, 1).unix_timestamp());
}

#[test]
fn a_new_certificate_is_taken_and_a_bad_one_is_not() {
    let folder = Folder::new();
    let files = folder.issue("a", &["a.example"], VALID);
    let store = CertStore::open(vec![files.clone()], None).unwrap();
    let reloaded = || {
        store.reload();
        chosen(&store, "a.example")
    };
    let first = der(&files);
    assert_eq!((reloaded(), store.reload_failures()), (first.clone(), 0));
    // Half-written: the certificate is new, the key is not yet.
    let old_key = std::fs::read(&files.key).unwrap();
    folder.issue("a", &["a.example"], VALID);
    let (second, new_key) = (der(&files), std::fs::read(&files.key).unwrap());
    std::fs::write(&files.key, &old_key).unwrap();
    assert_eq!((reloaded(), store.reload_failures()), (first, 1));
    std::fs::write(&files.key, &new_key).unwrap();
    assert_eq!((reloaded(), store.reload_failures()), (second.clone(), 1));
    folder.issue("a", &["a.example"], (2020, 2021));
    assert_eq!((reloaded(), store.reload_failures()), (second.clone(), 2));
    std::fs::remove_file(&files.key).unwrap();
    assert_eq!((reloaded(), store.reload_failures()), (second, 3));
}

#[test]
fn what_is_wrong_is_one_line_with_the_file() {
    let folder = Folder::new();
    let good = folder.issue("good", &["a.example"], VALID);
    let other = folder.issue("other", &["a.example"], VALID);
    let error = |cert: &Path, key: &Path| {
        let files = CertFiles { cert: cert.to_owned(), key: key.to_owned(), may_be_missing: false };
        let error = CertStore::open(vec![files], None).unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
        error
    };
    let write = |name: &str, content: &[u8]| {
        std::fs::write(folder.path(name), content).unwrap();
        folder.path(name)
    };
    let key = std::fs::read(&good.key).unwrap();
    for (cert, key, why) in [
        (folder.path("none"), good.key.clone(), "none: No such file"),
        (good.cert.clone(), folder.path("none"), "none: No such file"),
        (write("empty", b""), good.key.clone(), "empty: no certificate in PEM"),
        (write("der", &der(&good)), good.key.clone(), "der: no certificate in PEM"),
        (good.cert.clone(), write("no-key", b"text"), "no-key: no private key in PEM"),
        (good.cert.clone(), other.key.clone(), "other.key: the key is not that of the certificate"),
        (
            good.cert.clone(),
            write(
                "encrypted",
                &String::from_utf8(key).unwrap().replace("PRIVATE", "ENCRYPTED PRIVATE").into_bytes(),
            ),
            "encrypted: the key is encrypted",
        ),
        (folder.issue("old", &["a"], (2020, 2021)).cert, folder.files("old").key, "old.pem: expired on"),
        (
            folder.issue("new", &["a"], (2080, 2090)).cert,
            folder.files("new").key,
            "new.pem: not valid before",
        ),
        (write("huge", &vec![b'x'; 300_000]), good.key.clone(), "huge: longer than"),
    ] {
        let error = error(&cert, &key);
        assert!(error.contains(why), "{why}: {error}");
    }
}

/// As the kubelet replaces a Secret: `tls.crt` → `..data/tls.crt`, `..data` → a folder by date.
#[cfg(unix)]
#[test]
fn an_exchanged_link_is_followed() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new();
    for version in ["v1", "v2"] {
        let files = folder.issue(version, &["a.example"], VALID);
        std::fs::create_dir(folder.path(&format!("..{version}"))).unwrap();
        std::fs::rename(&files.cert, folder.path(&format!("..{version}/tls.crt"))).unwrap();
        std::fs::rename(&files.key, folder.path(&format!("..{version}/tls.key"))).unwrap();
    }
    symlink("..v1", folder.path("..data")).unwrap();
    symlink("..data/tls.crt", folder.path("tls.crt")).unwrap();
    symlink("..data/tls.key", folder.path("tls.key")).unwrap();
    let files =
        CertFiles { cert: folder.path("tls.crt"), key: folder.path("tls.key"), may_be_missing: false };
    let store = CertStore::open(vec![files.clone()], None).unwrap();
    let first = der(&files);
    symlink("..v2", folder.path("..new")).unwrap();
    std::fs::rename(folder.path("..new"), folder.path("..data")).unwrap();
    assert_eq!(chosen(&store, "a.example"), first);
    store.reload();
    assert_eq!(chosen(&store, "a.example"), der(&files));
    assert_ne!(der(&files), first);
}

#[test]
fn a_certificate_that_may_be_missing_comes_later_and_is_left_out_once_it_has_expired() {
    let folder = Folder::new();
    let one = CertFiles::in_one_that_may_be_missing(folder.path("b.pem"));
    let store = CertStore::open(vec![one.clone()], None).unwrap();
    assert_eq!((store.expires(), store.has_host("b.example")), (None, false));
    let put = |years| {
        let files = folder.issue("b", &["b.example", "::1"], years);
        let both =
            std::fs::read_to_string(&files.cert).unwrap() + &std::fs::read_to_string(&files.key).unwrap();
        std::fs::write(&one.cert, both).unwrap();
        store.reload();
    };
    put(VALID);
    assert!(store.has_host("b.example") && store.has_host("::1") && !store.has_host("a.b.example"));
    assert_eq!(
        validity(&std::fs::read(&one.cert).unwrap()).unwrap().1,
        date_time_ymd(2090, 1, 1).unix_timestamp()
    );
    put((2020, 2021));
    assert_eq!((store.expires(), store.has_host("b.example"), store.reload_failures()), (None, false, 0));
    CertStore::open(vec![one], None).unwrap();
}

#[test]
fn a_bundle_of_clients_cas_that_can_not_be_used_is_refused() {
    let folder = Folder::new();
    let files = folder.issue("a", &["a.example"], VALID);
    let file = folder.path("ca.pem");
    for (content, expected) in [
        (&b""[..], "no certificate in PEM"),
        (&der(&files)[..], "no certificate in PEM"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "an invalid CA certificate"),
    ] {
        std::fs::write(&file, content).unwrap();
        let ca = ClientCa { file: file.clone(), required: true };
        let error = CertStore::open(vec![files.clone()], Some(ca)).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("ca.pem"), "{error}");
    }
}
