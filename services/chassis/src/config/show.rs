//! The output of `--check-config`: each value with its origin.

use figment::value::{Dict, Value};

use super::error::ConfigError;
use super::layers::{Layers, Origin};
use super::text::shown;

impl Layers {
    /// One line per value: key, value, origin. Secrets are redacted.
    ///
    /// # Errors
    /// [`ConfigError`] if the layers can't be merged.
    pub fn show(&self) -> Result<String, ConfigError> {
        let mut lines = Vec::new();
        self.walk("", &self.merged()?, &mut lines);
        let width = lines.iter().map(|(setting, _)| setting.chars().count()).max().unwrap_or(0);
        Ok(lines.iter().map(|(setting, origin)| format!("{setting:width$}  # {origin}\n")).collect())
    }

    fn walk(&self, above: &str, dict: &Dict, lines: &mut Vec<(String, String)>) {
        for (key, value) in dict {
            let path = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
            match value {
                Value::Dict(_, below) if !below.is_empty() => self.walk(&path, below, lines),
                _ => {
                    let origin = match self.origin(&path) {
                        Origin::Default => "default".to_owned(),
                        Origin::File(file) => file.display().to_string(),
                        Origin::Variable(name) => name,
                    };
                    lines.push((format!("{path} = {}", shown(key, value)), origin));
                }
            }
        }
    }
}
