//! Procfiles, as foreman and Heroku have them. Pure.

use std::ffi::OsString;

/// Each name with its command, or the number of the line that is invalid, from 1.
pub(super) fn parse(text: &str) -> Result<Vec<(&str, &str)>, usize> {
    let mut programs = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, command) = line.split_once(':').ok_or(at + 1)?;
        let (name, command) = (name.trim(), command.trim());
        if name.is_empty() || command.is_empty() {
            return Err(at + 1);
        }
        programs.push((name, command));
    }
    Ok(programs)
}

/// A command line for the shell.
pub(super) fn shell(command: &str) -> Vec<OsString> {
    ["sh", "-c", command].map(OsString::from).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_names_and_commands() {
        let text = "# programs\nweb: python -m http.server $PORT\n\n  api :  node a.js --x=a:b \n";
        assert_eq!(
            parse(text).unwrap(),
            [("web", "python -m http.server $PORT"), ("api", "node a.js --x=a:b")]
        );
        assert_eq!(parse("web: x\nnothing\n"), Err(2));
        assert_eq!(parse("web:\n"), Err(1));
    }
}
