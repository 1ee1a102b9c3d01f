//! `hub cert show`: the certificates of a file, with the key and the CA beside it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;

use super::details::{Details, is_key_of, is_signed_by};
use super::display::{day, shown};
use super::pem;

/// What a file has, and the first reason why it can't be used.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) text: String,
    pub(super) fault: Option<String>,
}

/// Describes the certificates of a file, or of a folder with `tls.crt`.
///
/// # Errors
/// If there is no certificate in it.
pub(super) fn show(path: &Path, now: Timestamp) -> anyhow::Result<Shown> {
    let file = if path.is_dir() { path.join("tls.crt") } else { path.to_owned() };
    let certs = pem::certificates(&file, &pem::read(&file)?)?;
    let mut fault = None;
    let mut found = |text: String| {
        fault.get_or_insert_with(|| format!("{}: {text}", shown(&file)));
        text
    };
    let mut text = String::new();
    for (n, cert) in certs.iter().enumerate() {
        let details = Details::parse(cert).with_context(|| shown(&file))?;
        if n > 0 {
            text.push('\n');
        }
        let kind = if details.is_ca { " (a CA)" } else { "" };
        text += &format!("subject  {}{kind}\n", details.subject);
        if !details.names.is_empty() {
            text += &format!("names    {}\n", details.names.join(", "));
        }
        text += &format!("issuer   {}{}\n", details.issuer, issuer_check(&file, cert, &mut found));
        text +=
            &format!("valid    from {} until {}", day(details.not_before, now), day(details.not_after, now));
        if details.not_after <= now {
            text += &format!(": {}", found("has expired".to_owned()));
        } else if details.not_before > now {
            text += &format!(": {}", found("is not valid yet".to_owned()));
        }
        text += &format!("\nkey      {}", details.key);
        if n == 0 {
            text += &key_check(&file, cert, &mut found);
        }
        text.push('\n');
    }
    Ok(Shown { text, fault })
}

/// Whether the CA beside the file has signed it.
fn issuer_check(file: &Path, cert: &CertificateDer<'_>, found: &mut dyn FnMut(String) -> String) -> String {
    if is_signed_by(cert, cert) {
        return " (itself)".to_owned();
    }
    let bundle = file.with_file_name("ca.crt");
    let Ok(content) = pem::read(&bundle) else { return String::new() };
    let Ok(authorities) = pem::certificates(&bundle, &content) else { return String::new() };
    if authorities.iter().any(|authority| is_signed_by(cert, authority)) {
        format!(", in {}", shown(&bundle))
    } else {
        format!(": {}", found(format!("is not signed by a CA in {}", shown(&bundle))))
    }
}

/// Whether the key beside the file is that of its first certificate.
fn key_check(file: &Path, cert: &CertificateDer<'_>, found: &mut dyn FnMut(String) -> String) -> String {
    let key = key_file(file);
    if !key.exists() {
        return String::new();
    }
    let matches = || is_key_of(&pem::private_key(&key, &pem::read(&key)?)?, cert);
    match matches() {
        Ok(true) => format!(", in {}", shown(&key)),
        Ok(false) => format!("; {}", found(format!("{} is another key", shown(&key)))),
        Err(error) => format!("; {}", found(format!("{error:#}"))),
    }
}

/// Where the key of a certificate is: `tls.key` for `tls.crt`, `privkey.pem` for `fullchain.pem`.
fn key_file(file: &Path) -> PathBuf {
    if file.file_name().is_some_and(|name| name == "fullchain.pem" || name == "cert.pem") {
        return file.with_file_name("privkey.pem");
    }
    file.with_extension("key")
}
