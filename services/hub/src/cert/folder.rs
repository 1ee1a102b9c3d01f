//! A folder with an authority and the certificates that it has signed: `ca.crt`, `ca.key`, and in a folder for each name
//! `tls.crt`, `tls.key` and `ca.crt`, as cert-manager's Secrets are mounted.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::Timestamp;

use super::authority::{Authority, CertNames, CertPair, Host, new_authority, unique_name};
use super::details::Details;
use super::display::{day, shown};
use super::pem;
use crate::files::{PUBLIC_MODE, SECRET_MODE, lock_folder, make_folder, replace};

/// When to replace a certificate that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replace {
    Always,
    /// If a third of its lifetime is left or its names or the authority differ.
    WhenDue,
    Never,
}

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct CertFolder {
    path: PathBuf,
}

impl CertFolder {
    pub(crate) fn of(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Waits until no other command changes the folder, for as long as the result lives. Makes the folder if there is
    /// none.
    pub(crate) fn lock(&self) -> anyhow::Result<File> {
        lock_folder(&self.path)
    }

    pub(crate) fn authority_cert(&self) -> PathBuf {
        self.path.join("ca.crt")
    }

    pub(crate) fn authority_key(&self) -> PathBuf {
        self.path.join("ca.key")
    }

    /// The folder of a name's certificate.
    pub(crate) fn leaf(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn has_authority(&self) -> anyhow::Result<bool> {
        exists(&self.authority_cert())
    }

    /// Whether there is an authority that lasts until then.
    ///
    /// # Errors
    /// If its file can't be read, or is not a certificate.
    pub(crate) fn has_authority_until(&self, time: Timestamp) -> anyhow::Result<bool> {
        let (cert, key) = (self.authority_cert(), self.authority_key());
        if !exists(&cert)? || !exists(&key)? {
            return Ok(false);
        }
        let certs = pem::certificates(&cert, &pem::read(&cert)?)?;
        let ends = certs.first().map(Details::parse).transpose().with_context(|| shown(&cert))?;
        Ok(ends.is_some_and(|details| details.not_after >= time))
    }

    /// Makes an authority; returns a line about it.
    ///
    /// # Errors
    /// If there is one already, unless it is to be replaced.
    pub(crate) fn make_authority(
        &self,
        name: Option<&str>,
        now: Timestamp,
        lifetime: Duration,
        force: bool,
    ) -> anyhow::Result<String> {
        let (cert, key) = (self.authority_cert(), self.authority_key());
        if !force {
            for file in [&cert, &key] {
                if exists(file)? {
                    bail!("{} exists; to replace it, pass --force", shown(file));
                }
            }
        }
        let name = name.map_or_else(unique_name, str::to_owned);
        let pair = new_authority(&name, now, lifetime)?;
        make_folder(&self.path)?;
        write(&pair, &cert, &key)?;
        Ok(format!("{}: the CA {name:?}, until {}", shown(&cert), day(pair.not_after, now)))
    }

    /// The authority that signs.
    ///
    /// # Errors
    /// If there is none, or it can't be used.
    pub(crate) fn authority(&self, now: Timestamp) -> anyhow::Result<Authority> {
        let (cert, key) = (self.authority_cert(), self.authority_key());
        if !exists(&cert)? {
            bail!("there is no CA at {}; make one: hub cert init --dir {}", shown(&cert), shown(&self.path));
        }
        Authority::parse((&cert, &pem::read(&cert)?), (&key, &pem::read(&key)?), now)
    }

    /// # Errors
    /// If the name has a certificate or a key.
    pub(crate) fn check_free(&self, name: &str) -> anyhow::Result<()> {
        for file in ["tls.crt", "tls.key"].map(|file| self.leaf(name).join(file)) {
            if exists(&file)? {
                bail!("{} exists; to replace it, pass --renew or --force", shown(&file));
            }
        }
        Ok(())
    }

    /// Makes the certificate in the folder of its subject; returns a line about it. Without hosts, one that is replaced
    /// keeps those that it has.
    ///
    /// # Errors
    /// If a file can't be written.
    pub(crate) fn issue(
        &self,
        authority: &Authority,
        names: &CertNames,
        now: Timestamp,
        lifetime: Duration,
        when: Replace,
    ) -> anyhow::Result<String> {
        let folder = self.leaf(&names.subject);
        let (cert, key) = (folder.join("tls.crt"), folder.join("tls.key"));
        let mut names = names.clone();
        if names.hosts.is_empty() && when != Replace::Never {
            names.hosts =
                pem::read(&cert).map_or_else(|_| BTreeSet::new(), |content| hosts_of(&cert, &content));
        }
        make_folder(&folder)?;
        trust(&folder.join("ca.crt"), authority)?;
        if when == Replace::WhenDue
            && let (Ok(cert_content), Ok(key_content)) = (pem::read(&cert), pem::read(&key))
            && authority.is_current(&cert_content, &key_content, &names, now)
        {
            return Ok(format!("{}: nothing to do", shown(&cert)));
        }
        let pair = authority.issue(&names, now, lifetime)?;
        write(&pair, &cert, &key)?;
        let names = names.to_texts().join(", ");
        Ok(format!("{}: {names}, until {}", shown(&cert), day(pair.not_after, now)))
    }
}

/// The hosts of a certificate; none if it can't be read.
fn hosts_of(path: &Path, content: &[u8]) -> BTreeSet<Host> {
    let details = pem::certificates(path, content).ok().and_then(|certs| Details::parse(certs.first()?).ok());
    details.iter().flat_map(|details| &details.names).filter_map(|name| name.parse().ok()).collect()
}

/// Adds an authority to those that a file has. None is removed: during a change, the other side may still have a
/// certificate of the old one.
fn trust(bundle: &Path, authority: &Authority) -> anyhow::Result<()> {
    let mut text = String::new();
    if exists(bundle)? {
        let content = pem::read(bundle)?;
        if pem::certificates(bundle, &content).is_ok_and(|certs| certs.contains(authority.cert())) {
            return Ok(());
        }
        text = String::from_utf8(content).with_context(|| format!("{} is not text", shown(bundle)))?;
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
    }
    replace(bundle, &(text + authority.pem()), PUBLIC_MODE)
}

/// The key first: a reader that finds it with the old certificate keeps what it has, and reads again.
fn write(pair: &CertPair, cert: &Path, key: &Path) -> anyhow::Result<()> {
    replace(key, &pair.key, SECRET_MODE)?;
    replace(cert, &pair.cert, PUBLIC_MODE)
}

fn exists(path: &Path) -> anyhow::Result<bool> {
    path.try_exists().with_context(|| format!("can't read {}", shown(path)))
}
