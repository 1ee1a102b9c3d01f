//! ARCHITECTURE.md names files, modules and tests that exist.

use std::collections::BTreeSet;
use std::path::Path;

use crate::markdown::{Page, spans};
use crate::{files, pages, root};

const MAP: &str = "ARCHITECTURE.md";

/// The names of all functions in Rust and Python, tests among them.
fn functions() -> BTreeSet<String> {
    let code = files(&root())
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "rs" || end == "py"));
    let name = |line: &str| {
        let line = line.trim_start().trim_start_matches("async ");
        let rest = line.strip_prefix("fn ").or_else(|| line.strip_prefix("def "))?;
        Some(rest.split(['(', '<']).next()?.to_owned())
    };
    code.flat_map(|path| std::fs::read_to_string(path).unwrap().lines().filter_map(name).collect::<Vec<_>>())
        .collect()
}

fn map() -> Page {
    pages().remove(Path::new(MAP)).unwrap()
}

#[test]
fn each_invariant_names_tests_that_exist() {
    let (functions, page) = (functions(), map());
    let (mut within, mut items) = (false, Vec::<String>::new());
    for (_, line) in &page.prose {
        if line.starts_with('#') {
            within = line.to_lowercase().contains("invariants");
        } else if within && line.starts_with(|c: char| c.is_ascii_digit()) {
            items.push(line.clone());
        } else if within && line.starts_with(' ') {
            let item = items.last_mut().unwrap();
            item.push(' ');
            item.push_str(line.trim());
        }
    }
    let without: Vec<_> = items.iter().filter(|item| !item.contains("Held by `")).collect();
    assert_eq!(without, [""; 0], "invariants that name no test");
    assert!(items.len() >= 20, "{} invariants", items.len());

    let text: Vec<&str> = page.prose.iter().map(|(_, line)| line.trim()).collect();
    let text = text.join(" ");
    let tests: Vec<_> =
        text.split("Held by ").skip(1).flat_map(|rest| spans(rest.split('.').next().unwrap())).collect();
    let unknown: Vec<_> = tests.iter().filter(|test| !functions.contains(**test)).collect();
    assert_eq!(unknown, [&""; 0], "{MAP} names tests that do not exist");
}

#[test]
fn modules_exist() {
    let (mut package, mut modules, mut named) = (None, false, 0);
    for (number, line) in &map().prose {
        if line.starts_with('#') {
            package = spans(line).find(|span| span.starts_with("services/"));
        }
        // A table whose first column is "module": paths below the package's src.
        modules = line.starts_with("| module") || modules && line.starts_with('|');
        let Some(package) = package.filter(|_| modules) else { continue };
        for module in spans(line.split('|').nth(1).unwrap()) {
            let file = format!("{package}/src/{}.rs", module.replace("::", "/"));
            assert!(root().join(&file).exists(), "{MAP}:{number}: there is no {file}");
            named += 1;
        }
    }
    assert!(named > 40, "{named} modules");
}

#[test]
fn files_named_in_code_spans_exist() {
    let folders = ["services/", "tests/", "docs/", "docker/", "config/", "k8s/", ".ci/"];
    let (pages, mut named) = (pages(), 0);
    for page in [MAP, "CONTRIBUTING.md"] {
        for (number, line) in &pages[Path::new(page)].prose {
            let words = spans(line).flat_map(|span| span.split(' '));
            let paths = words.filter(|word| folders.iter().any(|folder| word.starts_with(folder)));
            for path in paths.filter(|path| !path.contains('*')) {
                assert!(root().join(path).exists(), "{page}:{number}: there is no {path}");
                named += 1;
            }
        }
    }
    assert!(named > 40, "{named} files");
}
