//! Files that are replaced as a whole, so that readers see the old content or the new.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::Context;

/// The mode of a file that only its owner may read.
pub(crate) const SECRET_MODE: u32 = 0o600;
/// The mode of a file without secrets: the services that read it may have other users.
pub(crate) const PUBLIC_MODE: u32 = 0o644;

/// Waits until no other command changes the folder, for as long as the result lives. Makes the folder if there is none.
pub(crate) fn lock_folder(folder: &Path) -> anyhow::Result<File> {
    make_folder(folder)?;
    let failed = || format!("can't use the folder {}", folder.display());
    let lock = File::open(folder).with_context(failed)?;
    lock.lock().with_context(failed)?;
    Ok(lock)
}

/// Makes a folder, and those above it, if there is none.
pub(crate) fn make_folder(folder: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(folder);
    made.with_context(|| format!("can't use the folder {}", folder.display()))
}

/// Writes a file with this mode, whatever the umask is.
pub(crate) fn replace(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let temporary = folder_of(path).join(format!(".{name}.{}", std::process::id()));
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        File::open(folder_of(path))?.sync_all()
    };
    write().with_context(|| format!("can't write {}", path.display()))
}

/// The folder that a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
