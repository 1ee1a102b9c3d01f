//! Settings that comments show.

use hubspoke_chassis::config::ConfigSource;

use super::{Container, SERVICES, load, root};

/// Every setting that a comment shows, uncommented: `# - {name: HUB_…, value: …}`, `# HUB_…: …`, `HUB_…=…`.
#[test]
fn settings_in_comments_are_valid() {
    let mut folders = vec![root().join("config"), root().join("k8s"), root().join("docker")];
    let mut files = vec![root().join("docker-compose.yml")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    let mut seen = 0;
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let comments = text.lines().filter_map(|line| line.trim_start().strip_prefix('#'));
        for (name, value) in comments.flat_map(commented_settings) {
            let service = name["HUB_".len()..].split("__").next().unwrap().to_lowercase();
            let service = SERVICES.iter().map(|(name, ..)| *name).find(|name| *name == service);
            let mut container = Container::default();
            container.vars.insert(name.clone(), value.clone());
            let place = format!("{}: {name}={value}", file.display());
            if name.starts_with("HUB_HUB__") {
                let source = ConfigSource { vars: vec![(name, value)], ..ConfigSource::default() };
                hubspoke::config::HubConfig::load(&source).unwrap_or_else(|error| panic!("{place}: {error}"));
            } else {
                let service = service.unwrap_or("log");
                let file = root().join(format!("config/{service}.toml"));
                load(service, &file, &container).unwrap_or_else(|error| panic!("{place}: {error}"));
            }
            seen += 1;
        }
    }
    assert!(seen >= 5, "only {seen} settings were found");
}

/// The `HUB_` variables with their values in one line of a comment.
fn commented_settings(line: &str) -> Vec<(String, String)> {
    let is_name = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
    let found = line.match_indices("HUB_").filter_map(|(at, _)| {
        let length = line.as_bytes()[at..].iter().take_while(|byte| is_name(byte)).count();
        let (name, rest) = line[at..].split_at(length);
        let value = if let Some(value) = rest.strip_prefix(", value: ") {
            value.split('}').next()?
        } else if let Some(value) = rest.strip_prefix(": ") {
            value
        } else {
            let value = rest.strip_prefix('=')?;
            match value.strip_prefix('"') {
                Some(quoted) => quoted.split('"').next()?,
                None => value.split([' ', ',', ';', '`', ')']).next()?.trim_end_matches(['.', ':']),
            }
        };
        Some((name.to_owned(), value.trim_matches('"').to_owned()))
    });
    found.collect()
}
