//! How this program was started, so that a command that it suggests works when it is pasted.

use std::env;
use std::path::Path;

/// The command line that starts this program again, without arguments: `hub` if the shell found it by that
/// name, the path that was typed, or `cargo run … --`.
pub(crate) fn command_line() -> String {
    let typed = env::args_os().next().map(|typed| typed.to_string_lossy().into_owned()).unwrap_or_default();
    let exe = env::current_exe().unwrap_or_default();
    // Cargo sets these for the program that it runs.
    let by_cargo = env::var_os("CARGO").is_some()
        && env::var_os("CARGO_PKG_NAME").is_some_and(|name| name == env!("CARGO_PKG_NAME"));
    let folders = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&folders).any(|folder| folder.join(&typed).is_file());
    line(&typed, &exe, by_cargo, on_path)
}

/// `exe` is the file of this process; `on_path` is whether the shell finds `typed` by its name.
fn line(typed: &str, exe: &Path, by_cargo: bool, on_path: bool) -> String {
    if by_cargo {
        // The folder that cargo builds into is named after the profile.
        let profile = exe.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        return match &*profile {
            "" | "debug" => "cargo run --bin hub --".to_owned(),
            "release" => "cargo run --release --bin hub --".to_owned(),
            other => format!("cargo run --profile {} --bin hub --", quoted(other)),
        };
    }
    if typed.contains('/') || on_path && !typed.is_empty() {
        return quoted(typed);
    }
    if exe.as_os_str().is_empty() { "hub".to_owned() } else { quoted(&exe.to_string_lossy()) }
}

/// A word as a shell reads it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_suggested_starts_this_program() {
        for (typed, exe, by_cargo, on_path, expected) in [
            ("hub", "/usr/local/bin/hub", false, true, "hub"),
            ("target/release/hub", "/src/target/release/hub", false, false, "target/release/hub"),
            ("./hub", "/src/hub", false, true, "./hub"),
            ("/opt/my tools/hub", "/opt/my tools/hub", false, false, "'/opt/my tools/hub'"),
            ("../it's/hub", "/it's/hub", false, false, r"'../it'\''s/hub'"),
            (
                "target/release/hub",
                "/src/target/release/hub",
                true,
                false,
                "cargo run --release --bin hub --",
            ),
            ("target/debug/hub", "/src/target/debug/hub", true, false, "cargo run --bin hub --"),
            (
                "/elsewhere/dist/hub",
                "/elsewhere/dist/hub",
                true,
                false,
                "cargo run --profile dist --bin hub --",
            ),
            // Started by a program that passes any name, as `exec -a` does.
            ("platform", "/opt/hub", false, false, "/opt/hub"),
            ("", "/opt/hub", false, true, "/opt/hub"),
            ("", "", false, false, "hub"),
        ] {
            assert_eq!(line(typed, Path::new(exe), by_cargo, on_path), expected, "{typed:?} {exe}");
        }
    }
}
