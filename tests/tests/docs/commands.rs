//! Every `hub …` command that a console block shows is one that `hub` takes.

use std::path::Path;

use clap::Parser;
use clap::error::ErrorKind;
use hubspoke::cli::HubCli;

use crate::markdown::Block;

/// The `hub` commands of a line typed at a prompt: run directly, by cargo, or in a container.
fn commands(line: &str) -> Vec<Vec<String>> {
    words(line)
        .split(|word| ["|", "&&", "&", ";", "do", "done"].contains(&word.as_str()))
        .filter_map(|words| {
            let is_setting = |word: &&String| word.split_once('=').is_some_and(|(name, _)| is_variable(name));
            let words: Vec<&str> = words.iter().skip_while(is_setting).map(String::as_str).collect();
            let arguments = match words[..] {
                ["cargo", "run", "--release", "--bin", "hub", ref rest @ ..] => {
                    rest.strip_prefix(&["--"]).unwrap_or(rest)
                }
                ["docker", "compose", "run", "--rm", "hub", ref rest @ ..] => rest,
                [program, ref rest @ ..] if Path::new(program).file_name()? == "hub" => rest,
                _ => return None,
            };
            Some(std::iter::once("hub").chain(arguments.iter().copied()).map(str::to_owned).collect())
        })
        .collect()
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// A shell's words, as far as the pages go: quotes group, and `#` begins a comment.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ') => words.extend(word.take()),
            (None, '|' | ';') => {
                words.extend(word.take());
                words.push(c.to_string());
            }
            (None, '>') => break, // where the output goes
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn typed(block: &Block) -> impl Iterator<Item = &str> {
    let prompts = block.text.lines().filter_map(|line| line.strip_prefix("$ "));
    prompts.filter(|_| block.language == "console")
}

#[test]
fn every_command_shown_parses() {
    let mut parsed = 0;
    for (path, page) in super::pages() {
        for command in page.blocks.iter().flat_map(typed).flat_map(commands) {
            let known = HubCli::try_parse_from(&command).err().is_none_or(|error| {
                matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion)
            });
            assert!(known, "{}: {}", path.display(), command.join(" "));
            parsed += 1;
        }
    }
    assert!(parsed > 20, "{parsed} commands are found");
}

#[test]
fn commands_are_found_in_a_line() {
    let found = |line: &str| commands(line).iter().map(|words| words.join(" ")).collect::<Vec<_>>();
    assert_eq!(found("HUB_LISTEN=127.0.0.1:1 hub status | grep hello"), ["hub status"]);
    assert_eq!(
        found("cargo run --release --bin hub -- demo --rate 20   # at a steady rate"),
        ["hub demo --rate 20"]
    );
    assert_eq!(found("docker compose run --rm hub watch"), ["hub watch"]);
    assert_eq!(found("target/release/hub logs --grep 'a b' &"), ["hub logs --grep a b"]);
    assert_eq!(found("curl 127.0.0.1:20001/hub"), [""; 0]);
}
