//! The lines of a tokens file; comments stay where they are. Pure.

use anyhow::bail;
use hubspoke_chassis::rights::{InvalidTokens, TokenEntry, TokenSet};

/// The text of a tokens file.
#[derive(Debug, Default)]
pub(super) struct TokenLines(String);

impl TokenLines {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// # Errors
    /// [`InvalidTokens`] with the number of the line.
    pub(super) fn parse(&self) -> Result<TokenSet, InvalidTokens> {
        TokenSet::parse(&self.0)
    }

    /// Whether there is a token of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.lines().any(|line| name_of(line) == Some(name))
    }

    /// Adds a token.
    ///
    /// # Errors
    /// If the name is taken, or the entry is invalid.
    pub(super) fn add(&mut self, entry: &TokenEntry) -> anyhow::Result<()> {
        if self.has(&entry.name) {
            bail!(
                "there is a token named {:?} already; choose another --name, or revoke it first",
                entry.name
            );
        }
        let line = entry.to_string();
        line.parse::<TokenEntry>()?;
        if !self.0.is_empty() && !self.0.ends_with('\n') {
            self.0.push('\n');
        }
        self.0 += &line;
        self.0.push('\n');
        Ok(())
    }

    /// Removes a token; `false` if there is none of this name.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let had = self.has(name);
        if had {
            let kept = self.0.lines().filter(|line| name_of(line) != Some(name));
            self.0 = kept.flat_map(|line| [line, "\n"]).collect();
        }
        had
    }

    /// The name, or the first of NAME-2, NAME-3, … that is free.
    pub(super) fn free_name(&self, name: &str) -> String {
        let numbered = (2..).map(|n: u32| format!("{name}-{n}"));
        let mut names = std::iter::once(name.to_owned()).chain(numbered);
        names.find(|name| !self.has(name)).unwrap_or_default() // there are more numbers than lines
    }
}

fn name_of(line: &str) -> Option<&str> {
    line.split_ascii_whitespace().next().filter(|name| !name.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use hubspoke_chassis::rights::{Role, hash_of};

    use super::*;

    fn entry(name: &str) -> TokenEntry {
        TokenEntry {
            name: name.to_owned(),
            role: Role::Reader,
            hosts: Vec::new(),
            expires: None,
            hash: hash_of(name),
        }
    }

    #[test]
    fn tokens_come_and_go_and_comments_stay() {
        let mut lines = TokenLines::new("# ours".to_owned());
        lines.add(&entry("a")).unwrap();
        lines.add(&entry("b")).unwrap();
        assert!(lines.add(&entry("a")).unwrap_err().to_string().contains("already"));
        assert!(lines.add(&entry("Not A Name")).is_err());
        assert_eq!(lines.parse().unwrap().len(), 2);
        assert!(lines.remove("a") && !lines.remove("a") && !lines.has("# ours") && !lines.has("#"));
        assert_eq!(lines.text(), format!("# ours\n{}\n", entry("b")));
    }

    #[test]
    fn a_taken_name_gets_a_number() {
        let mut lines = TokenLines::default();
        for name in ["shop", "shop-2", "shop-3"] {
            assert_eq!(lines.free_name("shop"), name);
            lines.add(&entry(name)).unwrap();
        }
    }
}
