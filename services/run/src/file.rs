//! `hub up -f FILE`: the programs of a Procfile or of a TOML file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hubspoke_protocol::{InvalidName, check_name};

use crate::spec::{ProgramSpec, RestartPolicy};

pub use self::env_file::{EnvFileError, read_env_file};

mod env_file;
mod procfile;
mod toml_file;

/// Most programs in a file.
pub const MAX_PROGRAMS: usize = 200;
/// Longest file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It can't be read.
    #[error("can't read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// It is longer than 1 MiB.
    #[error("{} is longer than {MAX_FILE} bytes", .0.display())]
    TooLong(PathBuf),
    /// A line of a Procfile is not `name: command`.
    #[error("{}, line {line}: expected NAME: COMMAND", .file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// From 1.
        line: usize,
    },
    /// It is not valid TOML, or a key is unknown or has an invalid value.
    #[error("{}: {why}", .file.display())]
    Toml {
        /// The file.
        file: PathBuf,
        /// The error, with its place.
        why: String,
    },
    /// A name is invalid.
    #[error("{}: {name:?} is not a valid name: {why}", .file.display())]
    Name {
        /// The file.
        file: PathBuf,
        /// The name.
        name: String,
        /// Why.
        why: InvalidName,
    },
    /// There are no programs in it, too many, or two of one name.
    #[error("{}: {why}", .file.display())]
    Programs {
        /// The file.
        file: PathBuf,
        /// The error.
        why: String,
    },
    /// The file of variables can't be used.
    #[error(transparent)]
    Env(#[from] EnvFileError),
}

/// Reads a TOML file (`*.toml`) or else a Procfile. Folders and files named in it are relative to its folder. Programs
/// that fail are restarted unless it says otherwise.
///
/// # Errors
/// [`FileError`].
pub fn read(path: &Path) -> Result<Vec<ProgramSpec>, FileError> {
    let failed = |error| FileError::Read(path.to_owned(), error);
    if fs::metadata(path).map_err(failed)?.len() > MAX_FILE {
        return Err(FileError::TooLong(path.to_owned()));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    let programs = if path.extension().is_some_and(|extension| extension == "toml") {
        toml_file::parse(&text, &dir).map_err(|why| FileError::Toml { file: path.to_owned(), why })?
    } else {
        let lines = procfile::parse(&text);
        let lines = lines.map_err(|line| FileError::Line { file: path.to_owned(), line })?;
        let env = dir.join(".env"); // as foreman does
        let env = if env.is_file() { read_env_file(&env)? } else { Vec::new() };
        let program = |(name, command): (&str, &str)| ProgramSpec {
            dir: Some(dir.clone()),
            env: env.clone(),
            restart: RestartPolicy::OnFailure,
            ..ProgramSpec::new(name, procfile::shell(command))
        };
        lines.into_iter().map(program).collect()
    };
    check(path, &programs)?;
    Ok(programs)
}

fn check(path: &Path, programs: &[ProgramSpec]) -> Result<(), FileError> {
    let invalid = |why: String| FileError::Programs { file: path.to_owned(), why };
    if programs.is_empty() || programs.len() > MAX_PROGRAMS {
        return Err(invalid(format!("expected 1 to {MAX_PROGRAMS} programs, found {}", programs.len())));
    }
    for (at, program) in programs.iter().enumerate() {
        check_name(&program.name).map_err(|why| FileError::Name {
            file: path.to_owned(),
            name: program.name.clone(),
            why,
        })?;
        if programs[..at].iter().any(|other| other.name == program.name) {
            return Err(invalid(format!("two programs are called {:?}", program.name)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_by_their_names_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        file(".env", "A=1\n");
        let procfile = read(&file("Procfile", "web: serve $PORT\nworker: work\n")).unwrap();
        assert_eq!(procfile.len(), 2);
        assert_eq!(procfile[0].command, ["sh", "-c", "serve $PORT"]);
        assert_eq!(procfile[0].env, [("A".to_owned(), "1".to_owned())]);
        assert_eq!(procfile[0].restart, RestartPolicy::OnFailure);
        for (name, text, why) in [
            ("Procfile.1", "no colon\n", "line 1: expected NAME: COMMAND"),
            ("Procfile.2", "Web: x\n", "\"Web\" is not a valid name"),
            ("Procfile.3", "web: x\nweb: y\n", "two programs are called \"web\""),
            ("Procfile.4", "# nothing\n", "found 0"),
            ("x.toml", "[programs.web]\ncomand = 'x'\n", "comand"),
        ] {
            let error = read(&file(name, text)).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(read(&dir.path().join("none")).unwrap_err().to_string().contains("can't read"));
    }
}
