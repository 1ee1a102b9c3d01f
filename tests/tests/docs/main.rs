//! The documentation is true: links lead somewhere, the book lists its pages, commands parse, code is that of the
//! examples, the configuration page is that of `config/*.toml`, and ARCHITECTURE.md names what exists.
//!
//! Generated parts are rewritten by `UPDATE_DOCS=1 cargo test -p hubspoke-tests --test docs`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails should say where")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use hubspoke_protocol::problem::ProblemType;

use self::markdown::{Block, Page};

mod architecture;
mod commands;
mod configuration;
mod markdown;
mod memory;
mod python;

/// Holds the part of a page between `<!-- generated from SOURCE -->` and its end to what it should be, or writes it.
fn check_generated(page: &str, source: &str, expected: &str) {
    let path = root().join(page);
    let text = std::fs::read_to_string(&path).unwrap();
    let begin = format!("<!-- generated from {source} -->\n");
    let end = "<!-- end of the generated part -->\n";
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{page} has no {begin}"));
    let (shown, after) = rest.split_once(end).unwrap_or_else(|| panic!("{page} has no {end}"));
    if shown == format!("{expected}\n") {
        return;
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{begin}{expected}\n{end}{after}")).unwrap();
        return;
    }
    let command = "UPDATE_DOCS=1 cargo test -p hubspoke-tests --test docs";
    let stale = shown.lines().zip(expected.lines()).find(|(shown, expected)| shown != expected);
    panic!("{page} is out of date; run {command}: {stale:?}");
}

/// The workspace's folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All files below a folder, hidden folders and build output left out.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        let name = name.to_str().unwrap();
        if path.is_dir() && !name.starts_with('.') && !["target", "vendor", "data"].contains(&name) {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}

/// Every Markdown page of the repository, by its path in it.
fn pages() -> BTreeMap<PathBuf, Page> {
    let root = root();
    let markdown = files(&root).into_iter().filter(|path| path.extension().is_some_and(|end| end == "md"));
    markdown
        .map(|path| {
            let page = Page::new(&std::fs::read_to_string(&path).unwrap());
            (path.strip_prefix(&root).unwrap().to_owned(), page)
        })
        .collect()
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(parts.pop()),
            std::path::Component::CurDir => {}
            part => parts.push(part),
        }
    }
    parts
}

#[test]
fn links_and_anchors_resolve() {
    let (root, pages) = (root(), pages());
    let mut broken = Vec::new();
    for (path, page) in &pages {
        for link in page.links.iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => normal(&path.parent().unwrap().join(file)),
            };
            let known = pages.get(&target);
            let resolves = match anchor {
                "" => root.join(&target).exists(),
                anchor => known.is_some_and(|page| page.anchors.contains(anchor)),
            };
            if !resolves {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert_eq!(broken, [""; 0], "links that lead nowhere");
    assert!(pages.values().map(|page| page.links.len()).sum::<usize>() > 100, "the links are found");
}

#[test]
fn the_book_lists_each_of_its_pages_once() {
    let pages = pages();
    let book = Path::new("docs");
    let summary = &pages[&book.join("SUMMARY.md")];
    let listed: Vec<_> = summary.links.iter().map(|link| book.join(link)).collect();
    let unique: BTreeSet<_> = listed.iter().cloned().collect();
    assert_eq!(listed.len(), unique.len(), "a page is listed twice");
    let written = pages.keys().filter(|path| path.starts_with(book) && !path.ends_with("SUMMARY.md"));
    assert_eq!(unique, written.cloned().collect());
}

#[test]
fn the_readmes_fit_on_one_page_and_agree() {
    let pages = pages();
    let [english, chinese] = ["README.md", "README.zh-CN.md"].map(|name| &pages[Path::new(name)]);
    for page in [english, chinese] {
        assert!(page.lines <= 150, "{} lines", page.lines);
    }
    assert!(english.links.contains("README.zh-CN.md") && chinese.links.contains("README.md"));
    let blocks = |page: &Page| -> Vec<Block> { page.blocks.clone() };
    assert_eq!(blocks(english), blocks(chinese), "both show the same commands and code");
    // CI runs this command, and so does whoever reads the first screen.
    let first_screen = |command: &str| {
        let shown = english.blocks.iter().find(|block| block.text.contains(&format!("$ {command}\n")));
        assert!(shown.is_some_and(|block| block.line < 40), "{command}");
    };
    first_screen("cargo run --release --bin hub");
    first_screen("cargo test --workspace");
}

#[test]
fn the_protocol_page_lists_every_problem_type() {
    let row = |it: &ProblemType| format!("| `{}` | {} | {} |\n", it.name(), it.status(), it.meaning());
    let rows: String = ProblemType::ALL.iter().map(row).collect();
    let table = format!("\n| type | status | meaning |\n|---|---|---|\n{rows}");
    check_generated("docs/protocol.md", "ProblemType::ALL", &table);
}

/// A block behind `<!-- from PATH -->` is a piece of that file, or all of it.
#[test]
fn code_blocks_are_pieces_of_the_files_that_they_name() {
    let mut checked = 0;
    for (path, page) in pages() {
        for block in &page.blocks {
            let Some(file) = &block.from else { continue };
            let text = std::fs::read_to_string(root().join(file)).unwrap_or_else(|_| panic!("no {file}"));
            assert!(text.contains(&block.text), "{}:{}: not in {file}", path.display(), block.line);
            checked += 1;
        }
    }
    assert!(checked >= 3, "{checked} blocks name their file");
}
