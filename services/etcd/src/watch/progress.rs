//! Whether an answer to a progress request can be relied on. Pure.

/// Whether a server of this version answers a progress request only after it has sent all changes before it. Earlier
/// ones answer at once, with a revision whose changes may still be on their way (etcd 15220).
pub(crate) fn is_ordered(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    let mut next = || parts.next().flatten().unwrap_or(0);
    (next(), next(), next()) >= (3, 5, 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_later_servers_are_relied_on() {
        for (version, expected) in [
            ("", false),
            ("3.4.23", false),
            ("3.5.7", false),
            ("3.5.8", true),
            ("3.6.0", true),
            ("3.6.0-rc.1", true),
            ("4.0.0", true),
        ] {
            assert_eq!(is_ordered(version), expected, "{version}");
        }
    }
}
