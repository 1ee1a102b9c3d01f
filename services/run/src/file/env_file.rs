//! Files of variables: `NAME=value` lines, with quotes, comments and `export`.

use std::path::{Path, PathBuf};

/// The file can't be read, or a line is invalid.
#[derive(Debug, thiserror::Error)]
#[error("can't use the variables in {}", .file.display())]
pub struct EnvFileError {
    file: PathBuf,
    #[source]
    error: dotenvy::Error,
}

/// The variables of a file.
///
/// # Errors
/// [`EnvFileError`].
pub fn read_env_file(path: &Path) -> Result<Vec<(String, String)>, EnvFileError> {
    let failed = |error| EnvFileError { file: path.to_owned(), error };
    dotenvy::from_path_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_with_quotes_and_comments() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.env");
        std::fs::write(&path, "# a comment\nexport A=1\nB=\"two words\" # more\n\nC='$A'\n").unwrap();
        let vars = read_env_file(&path).unwrap();
        let pairs: Vec<_> = vars.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("A", "1"), ("B", "two words"), ("C", "$A")]);
        std::fs::write(&path, "not a variable\n").unwrap();
        assert!(read_env_file(&path).unwrap_err().to_string().contains("app.env"));
    }
}
