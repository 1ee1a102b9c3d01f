//! As much Markdown as the checks need: links, headings as a forge turns them into anchors, and fenced code.

use std::collections::BTreeSet;

/// One page.
#[derive(Default)]
pub(crate) struct Page {
    pub(crate) lines: usize,
    /// Where links and pictures lead, as written.
    pub(crate) links: BTreeSet<String>,
    pub(crate) anchors: BTreeSet<String>,
    pub(crate) blocks: Vec<Block>,
    /// The lines outside of code, with their numbers.
    pub(crate) prose: Vec<(usize, String)>,
}

/// Fenced code. Two blocks are equal if they show the same.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(crate) line: usize,
    pub(crate) language: String,
    pub(crate) text: String,
    /// The file that the comment before the block names: `<!-- from PATH -->`.
    pub(crate) from: Option<String>,
}

impl PartialEq for Block {
    fn eq(&self, other: &Self) -> bool {
        (&self.language, &self.text) == (&other.language, &other.text)
    }
}

impl Page {
    pub(crate) fn new(text: &str) -> Self {
        let mut page = Self { lines: text.lines().count(), ..Self::default() };
        let mut open: Option<Block> = None;
        let mut from = None;
        for (number, line) in text.lines().enumerate() {
            let fence = line.trim_start().strip_prefix("```");
            match (&mut open, fence) {
                (None, Some(language)) => {
                    let (language, from) = (language.to_owned(), from.take());
                    open = Some(Block { line: number + 1, language, text: String::new(), from });
                }
                (Some(_), Some(_)) => page.blocks.extend(open.take()),
                (Some(block), None) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, None) => {
                    if !line.is_empty() {
                        let named = line.strip_prefix("<!-- from ");
                        from = named.and_then(|line| line.strip_suffix(" -->")).map(str::to_owned);
                    }
                    page.prose.push((number + 1, line.to_owned()));
                }
            }
        }
        assert!(open.is_none(), "a code block has no end");
        let prose = std::mem::take(&mut page.prose);
        for (_, line) in &prose {
            page.read(line);
        }
        Self { prose, ..page }
    }

    fn read(&mut self, line: &str) {
        let hashes = line.len() - line.trim_start_matches('#').len();
        if let Some(title) = line.get(hashes..).and_then(|line| line.strip_prefix(' '))
            && (1..=6).contains(&hashes)
        {
            let slug = slug(title);
            let repeated = (1..).map(|nth| format!("{slug}-{nth}"));
            let free = std::iter::once(slug.clone()).chain(repeated).find(|it| !self.anchors.contains(it));
            self.anchors.extend(free);
        }
        // Code spans hold no links.
        let text: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
        for after in text.split("](").skip(1) {
            let target = after.split_once(')').map_or(after, |(target, _)| target);
            self.links.insert(target.split(' ').next().unwrap_or_default().to_owned());
        }
        // A reference: `[label]: target`.
        if let Some((_, target)) = text.strip_prefix('[').and_then(|text| text.split_once("]: ")) {
            self.links.insert(target.to_owned());
        }
        for attribute in ["href=\"", "src=\""] {
            for after in text.split(attribute).skip(1) {
                self.links.extend(after.split_once('"').map(|(target, _)| target.to_owned()));
            }
        }
    }
}

/// The anchor of a heading: lower case, words joined by hyphens, and no punctuation.
fn slug(title: &str) -> String {
    let shown: String = title.split("](").map(|part| part.split_once(')').map_or(part, |it| it.1)).collect();
    let title = if title.contains("](") { shown } else { title.to_owned() };
    let kept = title.trim().to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
}

/// The spans of `code` in a line.
pub(crate) fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn anchors_are_those_of_a_forge() {
    for (title, anchor) in [
        ("Write a service", "write-a-service"),
        ("`GET /log`: read", "get-log-read"),
        ("What it costs (µs)", "what-it-costs-µs"),
        ("用 Rust 编写", "用-rust-编写"),
        ("A & b", "a--b"),
    ] {
        assert_eq!(slug(title), anchor);
    }
    let page = Page::new("# A\n## A\n```text\n# b\n[x](y)\n```\n[c](d#e) `[f](g)` ![h](i.png)\n");
    assert_eq!(page.anchors, ["a", "a-1"].map(str::to_owned).into());
    assert_eq!(page.links, ["d#e", "i.png"].map(str::to_owned).into());
}
