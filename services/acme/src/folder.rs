//! What is kept: the account, and for each host one file with its certificate, chain and key. Each server has a folder of
//! its own, so that another server's certificates are ordered anew. Only the owner may read them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use hubspoke_tls::CertFiles;

use crate::config::AcmeConfig;
use crate::error::AcmeError;

/// The files of the certificates, which may be missing as yet, below `data_dir`.
pub fn cert_files(config: &AcmeConfig, data_dir: &Path) -> Vec<CertFiles> {
    let folder = Folder::of(config, data_dir);
    config.hosts.iter().map(|host| CertFiles::in_one_that_may_be_missing(folder.cert(host))).collect()
}

/// The folder of one server.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn of(config: &AcmeConfig, data_dir: &Path) -> Self {
        let server = config.directory.strip_prefix("https://").unwrap_or(&config.directory);
        let name = server.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' });
        Self(data_dir.join("acme").join(name.collect::<String>()))
    }

    /// Makes the folder, and checks that it can be written.
    pub(crate) fn create(&self) -> Result<(), AcmeError> {
        let failed = |error: io::Error| AcmeError::file(&self.0, error);
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.0).map_err(failed)?;
        let probe = self.0.join(".writable");
        fs::write(&probe, "").and_then(|()| fs::remove_file(&probe)).map_err(failed)
    }

    pub(crate) fn account(&self) -> PathBuf {
        self.0.join("account.json")
    }

    pub(crate) fn cert(&self, host: &str) -> PathBuf {
        self.0.join(format!("{}.pem", host.to_ascii_lowercase()))
    }
}

/// Replaces a file as a whole: a reader sees the old content or the new.
pub(crate) fn replace(file: &Path, content: &[u8]) -> Result<(), AcmeError> {
    let next = file.with_extension("new");
    let write = || {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut opened = options.open(&next)?;
        opened.write_all(content)?;
        opened.sync_all()?;
        fs::rename(&next, file)
    };
    write().map_err(|error: io::Error| AcmeError::file(file, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_has_a_folder_and_files_are_for_their_owner() {
        let data = tempfile::tempdir().unwrap();
        let config = AcmeConfig::default();
        let folder = Folder::of(&config, data.path());
        folder.create().unwrap();
        folder.create().unwrap();
        assert!(folder.0.ends_with("acme/acme-v02.api.letsencrypt.org-directory"), "{folder:?}");
        let file = folder.cert("Shop.example");
        replace(&file, b"first").unwrap();
        replace(&file, b"second").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"second");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&folder.0), mode(&file)), (0o700, 0o600));
        }
        let error = Folder(file.join("below")).create().unwrap_err().to_string();
        assert!(error.contains("shop.example.pem/below"), "{error}");
    }
}
